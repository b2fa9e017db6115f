"""The tables of the read model, in SQL for both databases."""

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from projector.database import Connection, Table
from projector.domain.fullness import Fullness
from projector.domain.membership import Standing
from projector.domain.profile import Profile
from projector.read_model import schema
from projector.read_model.blocks import Block
from projector.read_model.evidence import decode_fullness, decode_lives, decode_member, decode_profile, encode
from projector.read_model.rows import MemberRow, Roster, RosterSnapshot, RosterUsers, StreamSnapshot

_MEMBER_COLUMNS: Final = "group_id, user_id, evidence, standing, position, at, change"
_BLOCK_COLUMNS: Final = ", ".join(Block._fields)


class SQLTables:
    """`Tables` in a database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        rows = self._connection.find("group_id, member_count, lives", schema.ROSTERS, zip(group_ids))
        return {group_id: Roster(decode_lives(lives), member_count) for group_id, member_count, lives in rows}

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        rows = self._connection.find(_MEMBER_COLUMNS, schema.MEMBERS, keys)
        return {(row[0], row[1]): _member_row(row) for row in rows}

    def present(self, group_id: str) -> Iterator[MemberRow]:
        for standing in (Standing.MEMBER, Standing.AWAITING):
            query = f"SELECT {_MEMBER_COLUMNS} FROM members WHERE group_id = ? AND standing = {standing:d}"
            yield from map(_member_row, self._connection.execute(query, (group_id,)))

    def present_users(self, group_id: str) -> Iterator[str]:
        for standing in (Standing.MEMBER, Standing.AWAITING):
            query = f"SELECT user_id FROM members WHERE group_id = ? AND standing = {standing:d}"
            yield from map(itemgetter(0), self._connection.execute(query, (group_id,)))

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        self._connection.upsert(
            schema.ROSTERS,
            [(group_id, roster.member_count, encode(roster.lives)) for group_id, roster in rosters.items()],
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
                    encode(row.member),
                )
                for row in rows
            ],
        )

    def save_earlier_members(self, rows: Iterable[MemberRow]) -> None:
        self._connection.upsert(
            schema.EARLIER_MEMBERS,
            [(row.group_id, row.user_id, row.position, row.at, row.change, encode(row.member)) for row in rows],
        )

    def save_roster_snapshots(self, snapshots: Iterable[RosterSnapshot]) -> None:
        self._connection.upsert(
            schema.ROSTER_SNAPSHOTS,
            [(*key, member_count, encode(lives)) for *key, lives, member_count in snapshots],
        )

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        row = self._connection.execute(
            "SELECT version, size FROM roster_users WHERE group_id = ? ORDER BY version DESC LIMIT 1", (group_id,)
        ).fetchone()
        return (row[0], row[1]) if row else None

    def save_roster_users(self, users: RosterUsers) -> None:
        row = (users.group_id, users.version, len(users.users), encode(users.users))
        self._connection.upsert(schema.ROSTER_USERS, [row])

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        rows = self._connection.find("group_id, evidence", schema.PROFILES, zip(group_ids))
        return {group_id: decode_profile(evidence) for group_id, evidence in rows}

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
                    encode(profile),
                )
                for group_id, profile in profiles.items()
            ],
        )

    def save_profile_snapshots(self, snapshots: Iterable[StreamSnapshot[Profile]]) -> None:
        self._save_snapshots(schema.PROFILE_SNAPSHOTS, snapshots)

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        rows = self._connection.find("group_id, evidence", schema.FULLNESS, zip(group_ids))
        return {group_id: decode_fullness(evidence) for group_id, evidence in rows}

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        self._connection.upsert(
            schema.FULLNESS,
            [(group_id, int(known.is_full), encode(known)) for group_id, known in fullness.items()],
        )

    def save_fullness_snapshots(self, snapshots: Iterable[StreamSnapshot[Fullness]]) -> None:
        self._save_snapshots(schema.FULLNESS_SNAPSHOTS, snapshots)

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Block]:
        rows = self._connection.find(_BLOCK_COLUMNS, schema.BLOCKS, keys)
        return {(row[0], row[1]): Block(*row) for row in rows}

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        self._connection.upsert(schema.BLOCKS, blocks)

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        self._connection.upsert(schema.DISMISSALS, dismissals)

    def _save_snapshots(self, table: Table, snapshots: Iterable[StreamSnapshot[Any]]) -> None:
        self._connection.upsert(
            table,
            [(group_id, version, encode(evidence)) for group_id, version, evidence in snapshots],
        )


def _member_row(row: tuple[Any, ...]) -> MemberRow:
    group_id, user_id, evidence, standing, *newest = row
    return MemberRow(group_id, user_id, decode_member(evidence), Standing(standing), *newest)
