"""The read model on SQLite: a file of its own beside the events, disposable, never synced before it need be."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from projector.domain.fullness import Fullness
from projector.domain.lives import Lives
from projector.domain.membership import Member, Standing
from projector.domain.profile import Profile
from projector.read_model import (
    Checkpoint,
    Mark,
    MemberRow,
    ReadModelUnavailable,
    Roster,
    Rows,
    SetAside,
    State,
)
from projector.read_model.blocks import Block
from projector.read_model.sqlite_link import LinkedFile
from projector.sqlite_files import switch_to_wal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from projector.read_model import RosterState, RosterUsers

SCHEMA_VERSION: Final = 2
"""A file of another schema is not read; the read model is built again from the events."""

_TABLES: Final = """
CREATE TABLE mark (id INTEGER PRIMARY KEY, position INTEGER NOT NULL, fingerprint BLOB NOT NULL);
CREATE TABLE checkpoints (
    projection TEXT PRIMARY KEY, version INTEGER NOT NULL, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE set_aside (
    projection TEXT, position INTEGER, reason TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (position, projection)) WITHOUT ROWID;
CREATE TABLE rosters (
    group_id TEXT PRIMARY KEY, member_count INTEGER NOT NULL, lives TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE members (
    group_id TEXT, user_id TEXT, standing INTEGER NOT NULL, position INTEGER NOT NULL, at INTEGER NOT NULL,
    change TEXT, evidence TEXT NOT NULL, PRIMARY KEY (group_id, user_id)) WITHOUT ROWID;
CREATE TABLE earlier_members (
    group_id TEXT, user_id TEXT, position INTEGER, at INTEGER NOT NULL, change TEXT, evidence TEXT NOT NULL,
    PRIMARY KEY (group_id, user_id, position)) WITHOUT ROWID;
CREATE TABLE roster_states (
    group_id TEXT, version INTEGER, position INTEGER NOT NULL, member_count INTEGER NOT NULL, lives TEXT NOT NULL,
    PRIMARY KEY (group_id, version)) WITHOUT ROWID;
CREATE TABLE roster_users (
    group_id TEXT, version INTEGER, size INTEGER NOT NULL, users TEXT NOT NULL,
    PRIMARY KEY (group_id, version)) WITHOUT ROWID;
CREATE TABLE profiles (
    group_id TEXT PRIMARY KEY, status TEXT NOT NULL, type TEXT, name TEXT,
    owner_at INTEGER NOT NULL, owner_position INTEGER NOT NULL, owner TEXT, evidence TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE profile_states (
    group_id TEXT, version INTEGER, evidence TEXT NOT NULL, PRIMARY KEY (group_id, version)) WITHOUT ROWID;
CREATE TABLE fullness (
    group_id TEXT PRIMARY KEY, is_full INTEGER NOT NULL, evidence TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE fullness_states (
    group_id TEXT, version INTEGER, evidence TEXT NOT NULL, PRIMARY KEY (group_id, version)) WITHOUT ROWID;
CREATE TABLE blocks (
    group_id TEXT, number INTEGER, earliest_at INTEGER NOT NULL, latest_at INTEGER NOT NULL,
    last_version INTEGER NOT NULL, last_position INTEGER NOT NULL, PRIMARY KEY (group_id, number)) WITHOUT ROWID;
CREATE TABLE dismissals (
    group_id TEXT, at INTEGER, position INTEGER, PRIMARY KEY (group_id, at, position)) WITHOUT ROWID;
"""

_INDEXES: Final = """
CREATE INDEX IF NOT EXISTS members_present ON members (group_id, user_id) WHERE standing = 1;
CREATE INDEX IF NOT EXISTS members_awaiting ON members (group_id, user_id) WHERE standing = 2;
CREATE INDEX IF NOT EXISTS members_by_user ON members (user_id, standing, group_id);
CREATE INDEX IF NOT EXISTS profiles_by_type ON profiles (type, status, group_id);
CREATE INDEX IF NOT EXISTS profiles_by_status ON profiles (status, group_id);
CREATE INDEX IF NOT EXISTS profiles_by_name ON profiles (name, group_id, type, status);
CREATE INDEX IF NOT EXISTS fullness_full ON fullness (group_id) WHERE is_full = 1;
"""

TABLES: Final[dict[str, dict[str, int]]] = {
    "membership": {"members": 2, "earlier_members": 3, "rosters": 1, "roster_states": 2, "roster_users": 2},
    "profile": {"profiles": 1, "profile_states": 2},
    "fullness": {"fullness": 1, "fullness_states": 2},
    "timeline": {"blocks": 2, "dismissals": 3},
}
"""The tables each projection owns, and how many of their first columns are the key."""

_SELECT_MEMBERS: Final = "SELECT group_id, user_id, evidence, standing, position, at, change FROM members"

_encode: Final = msgspec.json.Encoder(order="sorted").encode
member_of: Final = msgspec.json.Decoder(Member).decode
lives_of: Final = msgspec.json.Decoder(Lives).decode
profile_of: Final = msgspec.json.Decoder(Profile).decode
fullness_of: Final = msgspec.json.Decoder(Fullness).decode
users_of: Final = msgspec.json.Decoder(list[str]).decode


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn what the database cannot help into ReadModelUnavailable; what a row caused stays what it is."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        raise ReadModelUnavailable(f"SQLite: {error}") from error


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
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    row.group_id,
                    row.user_id,
                    int(row.standing),
                    row.position,
                    row.at,
                    row.change,
                    _encode(row.member).decode(),
                )
                for row in rows
            ],
        )

    def save_earlier_members(self, rows: Iterable[MemberRow]) -> None:
        """See `Tables`."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO earlier_members VALUES (?, ?, ?, ?, ?, ?)",
            [
                (row.group_id, row.user_id, row.position, row.at, row.change, _encode(row.member).decode())
                for row in rows
            ],
        )

    def save_roster_states(self, states: Iterable[RosterState]) -> None:
        """See `Tables`."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO roster_states VALUES (?, ?, ?, ?, ?)",
            [(*key, member_count, _encode(lives).decode()) for *key, lives, member_count in states],
        )

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        """See `Tables`."""
        newest = "SELECT version, size FROM roster_users WHERE group_id = ? ORDER BY version DESC LIMIT 1"
        found = self._connection.execute(newest, (group_id,)).fetchone()
        return (found[0], found[1]) if found else None

    def save_roster_users(self, users: RosterUsers) -> None:
        """See `Tables`."""
        self._connection.execute(
            "INSERT OR REPLACE INTO roster_users VALUES (?, ?, ?, ?)",
            (users.group_id, users.version, len(users.users), _encode(users.users).decode()),
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
                    *profile.owner.at,
                    profile.owner.value,
                    _encode(profile).decode(),
                )
                for group_id, profile in profiles.items()
            ],
        )

    def save_profile_states(self, states: Iterable[State[Profile]]) -> None:
        """See `Tables`."""
        self._save_states("profile_states", states)

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

    def save_fullness_states(self, states: Iterable[State[Fullness]]) -> None:
        """See `Tables`."""
        self._save_states("fullness_states", states)

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Block]:
        """See `Tables`."""
        found = self._find("SELECT * FROM blocks WHERE group_id = ? AND number = ?", keys)
        return {(row[0], row[1]): Block(*row) for row in found}

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        """See `Tables`."""
        self._connection.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?)", blocks)

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        """See `Tables`."""
        self._connection.executemany("INSERT OR REPLACE INTO dismissals VALUES (?, ?, ?)", dismissals)

    def _save_states(self, table: str, states: Iterable[State[Any]]) -> None:
        self._connection.executemany(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",
            [(group_id, version, _encode(evidence).decode()) for group_id, version, evidence in states],
        )

    def _find(self, statement: str, keys: Iterable[tuple[str | int, ...]]) -> Iterator[tuple[Any, ...]]:
        for key in keys:
            yield from self._connection.execute(statement, key)


class SQLiteCommitted:
    """`Committed` over one connection that is inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def checkpoints(self) -> dict[str, Checkpoint]:
        """See `Committed`."""
        found = self._connection.execute("SELECT projection, version, position FROM checkpoints")
        return {projection: Checkpoint(version, position) for projection, version, position in found}

    def mark(self) -> Mark | None:
        """See `Committed`."""
        found = self._connection.execute("SELECT position, fingerprint FROM mark").fetchone()
        return Mark(*found) if found else None

    def notes(self) -> list[SetAside]:
        """See `Committed`."""
        return notes(self._connection)

    def rows(self, projection: str, group_id: str | None = None) -> list[Rows]:
        """See `Committed`."""
        condition, arguments = ("", ()) if group_id is None else (" WHERE group_id = ?", (group_id,))
        return [
            Rows(table, width, self._connection.execute(f"SELECT * FROM {table}{condition} ORDER BY {key}", arguments))
            for table, width in sorted(TABLES[projection].items())
            for key in [", ".join(map(str, range(1, width + 1)))]
        ]


class SQLiteWork(SQLiteCommitted):
    """`Work` over one connection that is inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._tables = SQLiteTables(connection)

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

    def forget(self, projection: str, group_id: str) -> None:
        """See `Work`."""
        for table in TABLES[projection]:
            self._connection.execute(f"DELETE FROM {table} WHERE group_id = ?", (group_id,))

    def remember(self, mark: Mark) -> None:
        """See `Work`."""
        self._connection.execute("INSERT OR REPLACE INTO mark VALUES (1, ?, ?)", mark)

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
    """`ReadModel` in the file at `path`, or in the one that a link there names at the time."""

    def __init__(self, path: str, *, patience_s: float = 1) -> None:
        self._file = LinkedFile(path, SCHEMA_VERSION, patience_s)

    @contextmanager
    def transaction(self) -> Iterator[SQLiteWork]:
        """See `ReadModel`."""
        with unavailable(), self._begun("BEGIN IMMEDIATE") as connection:
            yield SQLiteWork(connection)

    @contextmanager
    def committed(self) -> Iterator[SQLiteCommitted]:
        """See `ReadModel`."""
        with unavailable(), self._begun("BEGIN") as connection:
            yield SQLiteCommitted(connection)

    def close(self) -> None:
        """See `ReadModel`."""
        self._file.close()

    @contextmanager
    def _begun(self, begin: str) -> Iterator[sqlite3.Connection]:
        connection = self._file.begin(begin)
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


class SQLiteUnindexed(SQLiteReadModel):
    """`Unindexed` in a new file, nothing of which is believed before it is finished.

    `afresh` are the projections to build, and their versions; the others are copied from another file, if given.
    """

    def __init__(self, path: str, afresh: Mapping[str, int], copied: str | None = None) -> None:
        self._path = path
        if copied is None:
            _create(path, afresh, _TABLES)
        else:
            _copy(copied, path, afresh)
        super().__init__(path)
        with unavailable():
            for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-8000"):
                self._file.connection().execute(f"PRAGMA {pragma}").fetchone()

    def append(self, part: str, projections: Iterable[str]) -> None:
        """See `Unindexed`."""
        connection = self._file.connection()
        with unavailable():
            connection.execute("ATTACH ? AS part", (part,))
            connection.execute("BEGIN")
            for table in (table for projection in projections for table in TABLES[projection]):
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM part.{table}")
            connection.execute("COMMIT")
            connection.execute("DETACH part")

    def finish(self) -> None:
        """See `Unindexed`."""
        with unavailable():
            for statement in _statements(_INDEXES):
                self._file.connection().execute(statement)
            self.close()
            switch_to_wal(self._path)


def create(path: str, versions: Mapping[str, int]) -> None:
    """Create an empty read model, each of these projections at 0. Raises ReadModelUnavailable."""
    _create(path, versions, _TABLES + _INDEXES)
    with unavailable():
        switch_to_wal(path)


def _create(path: str, versions: Mapping[str, int], schema: str) -> None:
    with unavailable(), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _statements(schema):
            connection.execute(statement)
        connection.executemany("INSERT INTO checkpoints VALUES (?, ?, 0)", versions.items())
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")


def _copy(source: str, path: str, afresh: Mapping[str, int]) -> None:
    with unavailable(), closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(path)) as connection:
        live.backup(connection)
        with connection:
            for table in (table for projection in afresh for table in TABLES[projection]):
                connection.execute(f"DELETE FROM {table}")
            connection.executemany("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, 0)", afresh.items())
            connection.executemany("DELETE FROM set_aside WHERE projection = ?", [(name,) for name in afresh])
        connection.execute("PRAGMA journal_mode=DELETE")


def notes(connection: sqlite3.Connection) -> list[SetAside]:
    """Return what is set aside, oldest first."""
    with unavailable():
        found = connection.execute("SELECT projection, position, reason, at FROM set_aside ORDER BY position")
        return [SetAside(*row) for row in found]


def _statements(script: str) -> Iterator[str]:
    return filter(str.strip, script.split(";"))


def _member_row(row: tuple[Any, ...]) -> MemberRow:
    group_id, user_id, evidence, standing, *newest = row
    return MemberRow(group_id, user_id, member_of(evidence), Standing(standing), *newest)
