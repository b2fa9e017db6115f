"""The read model in SQL that SQLite and PostgreSQL both speak."""

from __future__ import annotations

from contextlib import contextmanager
from operator import itemgetter
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
    StreamSnapshot,
    schema,
)
from projector.read_model.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from projector.database import Connection, Table
    from projector.read_model import RosterSnapshot, RosterUsers

_MEMBER: Final = "group_id, user_id, evidence, standing, position, at, change"

_BLOCK: Final = ", ".join(Block._fields)
_encode: Final = msgspec.json.Encoder(order="sorted").encode
member_of: Final = msgspec.json.Decoder(Member).decode
lives_of: Final = msgspec.json.Decoder(Lives).decode
profile_of: Final = msgspec.json.Decoder(Profile).decode
fullness_of: Final = msgspec.json.Decoder(Fullness).decode
users_of: Final = msgspec.json.Decoder(list[str]).decode


class SQLTables:
    """`Tables` over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        return {
            group_id: Roster(lives_of(lives), member_count)
            for group_id, member_count, lives in self._connection.find(
                "group_id, member_count, lives", schema.ROSTERS, zip(group_ids)
            )
        }

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        return {(row[0], row[1]): _member_row(row) for row in self._connection.find(_MEMBER, schema.MEMBERS, keys)}

    def present(self, group_id: str) -> Iterator[MemberRow]:
        for standing in (Standing.MEMBER, Standing.AWAITING):
            of_standing = f"SELECT {_MEMBER} FROM members WHERE group_id = ? AND standing = {standing:d}"
            yield from map(_member_row, self._connection.execute(of_standing, (group_id,)))

    def present_users(self, group_id: str) -> Iterator[str]:
        for standing in (Standing.MEMBER, Standing.AWAITING):
            of_standing = f"SELECT user_id FROM members WHERE group_id = ? AND standing = {standing:d}"
            yield from map(itemgetter(0), self._connection.execute(of_standing, (group_id,)))

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        self._connection.upsert(
            schema.ROSTERS,
            [(group_id, roster.member_count, _encode(roster.lives).decode()) for group_id, roster in rosters.items()],
        )

    def save_members(self, rows: Iterable[MemberRow]) -> None:
        self._connection.upsert(
            schema.MEMBERS,
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
        self._connection.upsert(
            schema.EARLIER_MEMBERS,
            [
                (row.group_id, row.user_id, row.position, row.at, row.change, _encode(row.member).decode())
                for row in rows
            ],
        )

    def save_roster_snapshots(self, states: Iterable[RosterSnapshot]) -> None:
        self._connection.upsert(
            schema.ROSTER_SNAPSHOTS,
            [(*key, member_count, _encode(lives).decode()) for *key, lives, member_count in states],
        )

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        newest = "SELECT version, size FROM roster_users WHERE group_id = ? ORDER BY version DESC LIMIT 1"
        found = self._connection.execute(newest, (group_id,)).fetchone()
        return (found[0], found[1]) if found else None

    def save_roster_users(self, users: RosterUsers) -> None:
        row = (users.group_id, users.version, len(users.users), _encode(users.users).decode())
        self._connection.upsert(schema.ROSTER_USERS, [row])

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        found = self._connection.find("group_id, evidence", schema.PROFILES, zip(group_ids))
        return {group_id: profile_of(evidence) for group_id, evidence in found}

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None:
        self._connection.upsert(
            schema.PROFILES,
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

    def save_profile_snapshots(self, states: Iterable[StreamSnapshot[Profile]]) -> None:
        self._save_snapshots(schema.PROFILE_SNAPSHOTS, states)

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        found = self._connection.find("group_id, evidence", schema.FULLNESS, zip(group_ids))
        return {group_id: fullness_of(evidence) for group_id, evidence in found}

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        self._connection.upsert(
            schema.FULLNESS,
            [(group_id, int(known.is_full), _encode(known).decode()) for group_id, known in fullness.items()],
        )

    def save_fullness_snapshots(self, states: Iterable[StreamSnapshot[Fullness]]) -> None:
        self._save_snapshots(schema.FULLNESS_SNAPSHOTS, states)

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Block]:
        found = self._connection.find(_BLOCK, schema.BLOCKS, keys)
        return {(row[0], row[1]): Block(*row) for row in found}

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        self._connection.upsert(schema.BLOCKS, blocks)

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        self._connection.upsert(schema.DISMISSALS, dismissals)

    def _save_snapshots(self, table: Table, states: Iterable[StreamSnapshot[Any]]) -> None:
        self._connection.upsert(
            table,
            [(group_id, version, _encode(evidence).decode()) for group_id, version, evidence in states],
        )


class SQLReadTransaction:
    """`ReadTransaction` over one connection that is inside a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def checkpoints(self) -> dict[str, Checkpoint]:
        found = self._connection.execute("SELECT projection, version, position FROM checkpoints")
        return {projection: Checkpoint(version, position) for projection, version, position in found}

    def mark(self) -> Mark | None:
        found = self._connection.execute("SELECT position, fingerprint FROM mark").fetchone()
        return Mark(*found) if found else None

    def set_aside_events(self) -> list[SetAside]:
        return set_aside_events(self._connection)

    def rows(self, projection: str, group_id: str | None = None) -> list[Rows]:
        condition, arguments = ("", ()) if group_id is None else (" WHERE group_id = ?", (group_id,))
        return [
            Rows(
                table.name,
                table.width,
                self._connection.stream(
                    f"SELECT * FROM {table.name}{condition} ORDER BY {', '.join(table.key)}", arguments
                ),
            )
            for table in sorted(schema.OWNED[projection])
        ]


class SQLUnitOfWork(SQLReadTransaction):
    """`UnitOfWork` over one connection that is inside a transaction."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._tables = SQLTables(connection)

    @contextmanager
    def advance(self, projection: str, *, through: int) -> Iterator[SQLTables]:
        with self._connection.errors_as(ReadModelUnavailable):
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

    def delete_group(self, projection: str, group_id: str) -> None:
        for table in schema.OWNED[projection]:
            self._connection.execute(f"DELETE FROM {table.name} WHERE group_id = ?", (group_id,))

    def save_mark(self, mark: Mark) -> None:
        self._connection.upsert(schema.MARK, [(1, *mark)])

    def set_aside(self, projection: str, position: int, *, reason: str, at: int) -> None:
        self._connection.upsert(schema.SET_ASIDE, [(position, projection, reason, at)])
        self._move(projection, position)

    def resolve(self, projection: str, position: int) -> None:
        self._connection.execute("DELETE FROM set_aside WHERE projection = ? AND position = ?", (projection, position))

    def _move(self, projection: str, through: int) -> None:
        self._connection.execute(
            "UPDATE checkpoints SET position = ? WHERE projection = ? AND position < ?", (through, projection, through)
        )


def set_aside_events(connection: Connection) -> list[SetAside]:
    """Return what is set aside, oldest first."""
    found = connection.execute("SELECT projection, position, reason, at FROM set_aside ORDER BY position, projection")
    return [SetAside(*row) for row in found]


def _member_row(row: tuple[Any, ...]) -> MemberRow:
    group_id, user_id, evidence, standing, *newest = row
    return MemberRow(group_id, user_id, member_of(evidence), Standing(standing), *newest)
