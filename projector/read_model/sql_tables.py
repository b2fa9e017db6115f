"""The tables of the read model, in SQL for both databases."""

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from projector.database import Connection
from projector.domain import membership
from projector.domain.lives import Moment
from projector.domain.membership import JoinType, Member
from projector.domain.profile import Profile, current
from projector.read_model import schema, shapes
from projector.read_model.blocks import Block
from projector.read_model.evidence import decode_group, decode_member, decode_texts, encode
from projector.read_model.rows import GroupEvidence, GroupRow, GroupSnapshot, MemberVersion, RosterUsers

_BLOCK_COLUMNS: Final = ", ".join(Block._fields)
_VERSION_COLUMNS: Final = "group_id, user_id, position, at, is_first, change, evidence"
PRESENT_COLUMNS: Final = (
    "group_id, user_id, position, at, is_first, change, entered_at, entered_position, join_type, operator, evidence"
)
_IS_ABOVE_FLOOR: Final = " WHERE group_id = ? AND (entered_at, entered_position) > (?, ?)"


class SQLTables:
    """`Tables` in a database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def groups(self, group_ids: Iterable[str]) -> dict[str, GroupRow]:
        rows = self._connection.find("group_id, member_count, evidence", schema.GROUPS, zip(group_ids))
        return {row[0]: group_row(*row) for row in rows}

    def save_groups(self, groups: Iterable[GroupRow]) -> None:
        self._connection.upsert(schema.GROUPS, map(_group_columns, groups))

    def texts(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        rows = self._connection.find("group_id, evidence", schema.PROFILES, zip(group_ids))
        return {group_id: decode_texts(evidence) for group_id, evidence in rows}

    def save_texts(self, texts: Mapping[str, Profile]) -> None:
        self._connection.upsert(schema.PROFILES, [_profile_columns(*item) for item in texts.items()])

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberVersion]:
        wanted = set(keys)
        present = self._connection.find(PRESENT_COLUMNS, schema.MEMBERS, wanted)
        found = {(row[0], row[1]): present_version(row) for row in present}
        absent = self._connection.find_newest(_VERSION_COLUMNS, schema.MEMBER_VERSIONS, wanted - found.keys())
        return found | {(row[0], row[1]): MemberVersion._make((*row[:-1], decode_member(row[-1]))) for row in absent}

    def count_present(self, group_id: str, since: Moment) -> int:
        query = "SELECT COUNT(*) FROM members" + _IS_ABOVE_FLOOR
        return int(self._connection.execute(query, (group_id, *since)).fetchone()[0])

    def present_users(self, group_id: str, since: Moment) -> Iterator[str]:
        query = "SELECT user_id FROM members" + _IS_ABOVE_FLOOR
        return map(itemgetter(0), self._connection.execute(query, (group_id, *since)))

    def save_present(self, newest: Iterable[MemberVersion]) -> None:
        self._connection.upsert(schema.MEMBERS, [_member_columns(version) for version in newest])

    def save_absent(self, newest: Iterable[MemberVersion]) -> None:
        self.save_earlier(newest)

    def delete_present(self, keys: Iterable[tuple[str, str]]) -> None:
        self._connection.delete(schema.MEMBERS, keys)

    def save_earlier(self, versions: Iterable[MemberVersion]) -> None:
        self._connection.upsert(
            schema.MEMBER_VERSIONS, [(*version[:-1], encode(version.member)) for version in versions]
        )

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        row = self._connection.execute(
            "SELECT version, size FROM roster_users WHERE group_id = ? ORDER BY version DESC LIMIT 1", (group_id,)
        ).fetchone()
        return (row[0], row[1]) if row else None

    def save_roster_users(self, users: RosterUsers) -> None:
        row = (users.group_id, users.version, len(users.users), encode(users.users))
        self._connection.upsert(schema.ROSTER_USERS, [row])

    def save_snapshots(self, snapshots: Iterable[tuple[str, GroupSnapshot]]) -> None:
        rows = [(group_id, snapshot.version, encode(snapshot)) for group_id, snapshot in snapshots]
        self._connection.upsert(schema.SNAPSHOTS, rows)

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[str, Block]:
        rows = self._connection.find(_BLOCK_COLUMNS, schema.BLOCKS, keys)
        return {row[0]: Block(*row) for row in rows}

    def delete_blocks(self, keys: Iterable[tuple[str, int]]) -> None:
        self._connection.delete(schema.BLOCKS, keys)

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        self._connection.upsert(schema.BLOCKS, blocks)

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        self._connection.upsert(schema.DISMISSALS, dismissals)


def group_row(group_id: str, member_count: int, stored: str) -> GroupRow:
    """Return a group from its columns."""
    evidence = decode_group(stored)
    block = Block(group_id, *evidence.block)
    return GroupRow(group_id, evidence.profile, evidence.fullness, member_count, evidence.owner_exited, block)


def _group_columns(row: GroupRow) -> tuple[Any, ...]:
    group_id, profile, fullness, member_count, owner_exited, block = row
    lives = profile.lives
    roster_complete = lives.roster_complete
    return (
        group_id,
        profile.type.value,
        profile.status,
        membership.present_owner(profile.owner, owner_exited),
        member_count,
        fullness.member_limit(member_count, roster_complete=roster_complete),
        int(roster_complete),
        int(fullness.is_full),
        fullness.full_at,
        lives.created_at,
        lives.dismissed_at,
        profile.updated_at,
        profile.position,
        *membership.roster_floor(lives),
        encode(GroupEvidence(profile, fullness, owner_exited, block[1:])),
    )


def _profile_columns(group_id: str, texts: Profile) -> tuple[Any, ...]:
    return (
        group_id,
        texts.name.value,
        texts.introduction.value,
        texts.notification.value,
        texts.face_url.value,
        encode(current(texts.custom_fields)),
        encode(current(texts.attributes)),
        encode(texts),
    )


def present_version(row: tuple[Any, ...]) -> MemberVersion:
    """Return a present user's newest version from its `PRESENT_COLUMNS`."""
    group_id, user_id, *newest, entered_at, entered_position, join_type, operator, evidence = row
    if evidence is None:
        member = _plain_join((entered_at, entered_position), join_type, operator)
    else:
        member = decode_member(evidence)
    return MemberVersion._make((group_id, user_id, *newest, member))


def _member_columns(version: MemberVersion) -> tuple[Any, ...]:
    group_id, user_id, *newest, member = version
    role = membership.own_role(member)
    shown = shapes.member(user_id, member, role)
    return (
        group_id,
        user_id,
        membership.joined_at(member),
        *member.entered,
        role,
        shown.name_card,
        shown.join_type,
        shown.operator,
        shapes.encoded(shown),
        *newest,
        None if member == _plain_join(member.joined, member.join_type, member.operator) else encode(member),
    )


def _plain_join(joined: Moment, join_type: JoinType | None, operator: str | None) -> Member:
    """Return the evidence about a user of whom no more is known than a join."""
    return Member(joined=joined, join_type=join_type, operator=operator)
