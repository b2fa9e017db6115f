"""The read model on SQLite: a file of its own beside the events, disposable, never synced before it need be."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from projector.domain.fullness import Fullness
from projector.domain.lives import Lives, Register
from projector.domain.membership import Member, Standing
from projector.domain.profile import Profile
from projector.read_model import MemberRow, ReadModelUnavailable, Roster, Row, SetAside
from projector.sqlite_files import LOCK_TIMEOUT_S, switch_to_wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SCHEMA_VERSION: Final = 1
"""A file of another schema is emptied and rebuilt from the events."""

_SCHEMA: Final = """
CREATE TABLE checkpoints (
    projection TEXT PRIMARY KEY, version INTEGER NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE set_aside (
    projection TEXT, position INTEGER, reason TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (position, projection)) WITHOUT ROWID;
CREATE TABLE rosters (
    group_id TEXT PRIMARY KEY, member_count INTEGER NOT NULL, lives TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE members (
    group_id TEXT, user_id TEXT, standing INTEGER NOT NULL,
    joined_at INTEGER NOT NULL, joined_position INTEGER NOT NULL, join_type TEXT, operator TEXT,
    exited_at INTEGER NOT NULL, exited_position INTEGER NOT NULL,
    role_at INTEGER NOT NULL, role_position INTEGER NOT NULL, role TEXT,
    name_card_at INTEGER NOT NULL, name_card_position INTEGER NOT NULL, name_card TEXT,
    PRIMARY KEY (group_id, user_id)) WITHOUT ROWID;
CREATE INDEX members_present ON members (group_id, user_id) WHERE standing = 1;
CREATE INDEX members_awaiting ON members (group_id, user_id) WHERE standing = 2;
CREATE INDEX members_by_user ON members (user_id, standing, group_id);
CREATE TABLE profiles (
    group_id TEXT PRIMARY KEY, status TEXT NOT NULL, type TEXT, name TEXT,
    owner_at INTEGER NOT NULL, owner_position INTEGER NOT NULL, owner TEXT, evidence TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX profiles_by_type ON profiles (type, status, group_id);
CREATE INDEX profiles_by_status ON profiles (status, group_id);
CREATE INDEX profiles_by_name ON profiles (name, group_id, type, status);
CREATE TABLE fullness (
    group_id TEXT PRIMARY KEY, is_full INTEGER NOT NULL, evidence TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX fullness_full ON fullness (group_id) WHERE is_full = 1;
"""

TABLES: Final[dict[str, dict[str, int]]] = {
    "membership": {"members": 2, "rosters": 1},
    "profile": {"profiles": 1},
    "fullness": {"fullness": 1},
}
"""The tables each projection owns, and how many of their first columns are the key."""

_OUR_TABLES: Final = ("checkpoints", "set_aside", *(table for owned in TABLES.values() for table in owned))

MEMBER_COLUMNS: Final = (
    "joined_at, joined_position, join_type, operator, exited_at, exited_position,"
    " role_at, role_position, role, name_card_at, name_card_position, name_card"
)

_SELECT_MEMBERS: Final = f"SELECT group_id, user_id, standing, {MEMBER_COLUMNS} FROM members"  # noqa: S608 - ours

_encode: Final = msgspec.json.Encoder(order="sorted").encode
lives_of: Final = msgspec.json.Decoder(Lives).decode
profile_of: Final = msgspec.json.Decoder(Profile).decode
fullness_of: Final = msgspec.json.Decoder(Fullness).decode


def connect(path: str) -> sqlite3.Connection:
    """Open the read model's file. Raises ReadModelUnavailable."""
    with unavailable():
        switch_to_wal(path)
        connection = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-16000")
        return connection


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn what the database cannot help into ReadModelUnavailable; what a row caused stays what it is."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        raise ReadModelUnavailable(f"SQLite: {error}") from error


def member_of(columns: Sequence[Any]) -> Member:
    """Return the evidence in a row's `MEMBER_COLUMNS`."""
    joined_at, joined, join_type, operator, exited_at, exited, *registers = columns
    role_at, role_position, role, card_at, card_position, card = registers
    return Member(
        (joined_at, joined),
        join_type,
        operator,
        (exited_at, exited),
        Register((role_at, role_position), role),
        Register((card_at, card_position), card),
    )


class SQLiteTables:
    """`Tables` over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        """See `Tables`."""
        return {
            group_id: Roster(lives_of(lives), member_count)
            for group_id, member_count, lives in self._find(
                "SELECT group_id, member_count, lives FROM rosters WHERE group_id = ?", zip(group_ids)
            )
        }

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        """See `Tables`."""
        return {
            (row[0], row[1]): _member_row(row)
            for row in self._find(_SELECT_MEMBERS + " WHERE group_id = ? AND user_id = ?", keys)
        }

    def present(self, group_id: str) -> Iterator[MemberRow]:
        """See `Tables`."""
        for standing in (Standing.MEMBER, Standing.AWAITING):
            of_standing = f"{_SELECT_MEMBERS} WHERE group_id = ? AND standing = {standing:d}"
            yield from map(_member_row, self._connection.execute(of_standing, (group_id,)))

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        """See `Tables`."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO rosters VALUES (?, ?, ?)",
            [(group_id, roster.member_count, _encode(roster.lives).decode()) for group_id, roster in rosters.items()],
        )

    def save_members(self, rows: Iterable[MemberRow]) -> None:
        """See `Tables`."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    row.group_id,
                    row.user_id,
                    int(row.standing),
                    *row.member.joined,
                    row.member.join_type,
                    row.member.operator,
                    *row.member.exited,
                    *_columns(row.member.role),
                    *_columns(row.member.name_card),
                )
                for row in rows
            ],
        )

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        """See `Tables`."""
        found = self._find("SELECT group_id, evidence FROM profiles WHERE group_id = ?", zip(group_ids))
        return {group_id: profile_of(evidence) for group_id, evidence in found}

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None:
        """See `Tables`."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO profiles VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    group_id,
                    profile.status,
                    profile.type.value,
                    profile.name.value,
                    *_columns(profile.owner),
                    _encode(profile).decode(),
                )
                for group_id, profile in profiles.items()
            ],
        )

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        """See `Tables`."""
        found = self._find("SELECT group_id, evidence FROM fullness WHERE group_id = ?", zip(group_ids))
        return {group_id: fullness_of(evidence) for group_id, evidence in found}

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        """See `Tables`."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO fullness VALUES (?, ?, ?)",
            [(group_id, int(known.is_full), _encode(known).decode()) for group_id, known in fullness.items()],
        )

    def rows(self, projection: str, group_id: str | None) -> Iterator[Row]:
        """See `Tables`."""
        condition, arguments = ("", ()) if group_id is None else (" WHERE group_id = ?", (group_id,))
        for table, width in sorted(TABLES[projection].items()):
            key = ", ".join(str(column) for column in range(1, width + 1))
            for values in self._connection.execute(
                f"SELECT * FROM {table}{condition} ORDER BY {key}",  # noqa: S608 - names of ours
                arguments,
            ):
                yield Row(table, values[:width], values)

    def put(self, row: Row) -> None:
        """See `Tables`."""
        if row.values is None:
            key = "group_id = ?" if len(row.key) == 1 else "group_id = ? AND user_id = ?"
            self._connection.execute(f"DELETE FROM {row.table} WHERE {key}", row.key)  # noqa: S608 - as above
        else:
            marks = ", ".join("?" * len(row.values))
            self._connection.execute(f"INSERT OR REPLACE INTO {row.table} VALUES ({marks})", row.values)  # noqa: S608

    def _find(self, statement: str, keys: Iterable[tuple[str, ...]]) -> Iterator[tuple[Any, ...]]:
        for key in keys:
            yield from self._connection.execute(statement, key)


class SQLiteWork:
    """`Work` over one connection that is inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tables = SQLiteTables(connection)

    def position(self, projection: str) -> int:
        """See `Work`."""
        found = self._connection.execute("SELECT position FROM checkpoints WHERE projection = ?", (projection,))
        return int(found.fetchone()[0])

    def version(self, projection: str) -> int:
        """See `Work`."""
        found = self._connection.execute("SELECT version FROM checkpoints WHERE projection = ?", (projection,))
        return int(found.fetchone()[0])

    @contextmanager
    def advance(self, projection: str, *, through: int) -> Iterator[SQLiteTables]:
        """See `Work`."""
        with unavailable():
            self._connection.execute("SAVEPOINT projection")
            try:
                yield self._tables
                self._move(projection, through)
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK TO projection")
                raise
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("RELEASE projection")

    def set_aside(self, projection: str, position: int, *, reason: str, at: int) -> None:
        """See `Work`."""
        self._connection.execute(
            "INSERT OR REPLACE INTO set_aside VALUES (?, ?, ?, ?)", (projection, position, reason, at)
        )
        self._move(projection, position)

    def settle(self, projection: str, position: int) -> None:
        """See `Work`."""
        self._connection.execute("DELETE FROM set_aside WHERE projection = ? AND position = ?", (projection, position))

    def _move(self, projection: str, through: int) -> None:
        self._connection.execute(
            "UPDATE checkpoints SET position = MAX(position, ?) WHERE projection = ?", (through, projection)
        )


class SQLiteReadModel:
    """`ReadModel` in one SQLite file."""

    def __init__(self, path: str) -> None:
        self._connection = connect(path)
        with unavailable():
            self._connection.execute("PRAGMA wal_autocheckpoint=4000")
            self._create()

    def prepare(self, versions: Mapping[str, int], head: Callable[[], int] | None = None) -> list[str]:
        """See `ReadModel`."""
        with self._writing():
            found = self._connection.execute("SELECT projection, version, position FROM checkpoints").fetchall()
            newest = head() if head else None
            kept = {
                projection
                for projection, version, position in found
                if version == versions.get(projection) and (newest is None or position <= newest)
            }
            for projection in versions.keys() - kept:
                self._empty(projection, versions[projection])
            return sorted(projection for projection, *_ in found if projection in versions.keys() - kept)

    @contextmanager
    def transaction(self) -> Iterator[SQLiteWork]:
        """See `ReadModel`."""
        with self._writing():
            yield SQLiteWork(self._connection)

    def notes(self) -> list[SetAside]:
        """See `ReadModel`."""
        return notes(self._connection)

    def close(self) -> None:
        """See `ReadModel`."""
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with unavailable():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _create(self) -> None:
        with self._writing():
            found = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if found == SCHEMA_VERSION:
                return
            for table in _OUR_TABLES:
                self._connection.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _empty(self, projection: str, version: int) -> None:
        for table in TABLES[projection]:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        self._connection.execute("DELETE FROM set_aside WHERE projection = ?", (projection,))
        self._connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, 0)", (projection, version))


def notes(connection: sqlite3.Connection) -> list[SetAside]:
    """Return what is set aside, oldest first."""
    with unavailable():
        found = connection.execute("SELECT projection, position, reason, at FROM set_aside ORDER BY position")
        return [SetAside(*row) for row in found]


def _member_row(row: tuple[Any, ...]) -> MemberRow:
    return MemberRow(row[0], row[1], member_of(row[3:]), Standing(row[2]))


def _columns(register: Register) -> tuple[int, int, str | None]:
    return (*register.at, register.value)
