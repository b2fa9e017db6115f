"""The questions, in SQL: every one is answered from an index, at a cost that its answer's size bounds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TypeAlias

from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, Register
from projector.read_model import Roster, SetAside
from projector.read_model.queries import Counts, GroupFilter, GroupState, Membership
from projector.read_model.sql import fullness_of, lives_of, member_of, profile_of, set_aside_events
from projector.read_model.sql_past import SQLPast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.database import Connection

_Argument: TypeAlias = str | int

_SELECT_GROUPS: Final = (
    "SELECT profiles.group_id, profiles.evidence, member_count, lives, fullness.evidence, members.evidence"
    " FROM profiles LEFT JOIN fullness ON fullness.group_id = profiles.group_id"
    " LEFT JOIN rosters ON rosters.group_id = profiles.group_id"
    " LEFT JOIN members ON members.group_id = profiles.group_id AND members.user_id = profiles.owner"
    " WHERE profiles.group_id"
)
_SELECT_MEMBERS: Final = (
    "SELECT members.group_id, members.user_id, owner_at, owner_position, owner, members.evidence"
    " FROM members INDEXED BY {index} LEFT JOIN profiles ON profiles.group_id = members.group_id WHERE standing = 1"
)
_ROSTER: Final = (
    _SELECT_MEMBERS.format(index="members_present")
    + " AND members.group_id = ? AND user_id > ? ORDER BY user_id LIMIT ?"
)
_MEMBER: Final = _SELECT_MEMBERS.format(index="members_present") + " AND members.group_id = ? AND user_id = ?"
_GROUPS_OF: Final = (
    _SELECT_MEMBERS.format(index="members_by_user")
    + " AND user_id = ? AND members.group_id > ? ORDER BY members.group_id LIMIT ?"
)


class SQLQuerySession:
    """`QuerySession` over one connection that is inside a read transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def past(self) -> SQLPast:
        return SQLPast(self._connection)

    def positions(self) -> dict[str, int]:
        return dict(iter(self._connection.execute("SELECT projection, position FROM checkpoints")))

    def group(self, group_id: str) -> GroupState | None:
        found = self._connection.execute(_SELECT_GROUPS + " = ?", (group_id,))
        return _group_state(row) if (row := found.fetchone()) else None

    def groups(self, condition: GroupFilter, after: str, limit: int) -> list[GroupState]:
        page, arguments = _page_of_ids(condition, after, limit)
        found = self._connection.execute(_SELECT_GROUPS + f" IN ({page}) ORDER BY 1 LIMIT ?", (*arguments, limit))
        return [_group_state(row) for row in found]

    def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        return self._memberships(_ROSTER, (group_id, after, limit))

    def member(self, group_id: str, user_id: str) -> Membership | None:
        return next(iter(self._memberships(_MEMBER, (group_id, user_id))), None)

    def knows_user(self, user_id: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM members WHERE user_id = ? LIMIT 1", (user_id,))
        return found.fetchone() is not None

    def groups_of(self, user_id: str, after: str, limit: int) -> list[Membership]:
        return self._memberships(_GROUPS_OF, (user_id, after, limit))

    def set_aside_events(self) -> list[SetAside]:
        return set_aside_events(self._connection)

    def counts(self) -> Counts:
        groups, active = self._connection.execute(
            "SELECT COUNT(*), COUNT(CASE WHEN status = 'active' THEN 1 END) FROM profiles"
        ).fetchone()
        (full,) = self._connection.execute("SELECT COUNT(*) FROM fullness WHERE is_full = 1").fetchone()
        (members,) = self._connection.execute(
            "SELECT CAST(COALESCE(SUM(member_count), 0) AS bigint) FROM rosters"
        ).fetchone()
        return Counts(groups, active, full, members)

    def _memberships(self, question: str, arguments: tuple[str | int, ...]) -> list[Membership]:
        found = self._connection.execute(question, arguments)
        return [
            Membership(group_id, user_id, member_of(evidence), Register((owner_at or 0, owner_position or 0), owner))
            for group_id, user_id, owner_at, owner_position, owner, evidence in found
        ]


def _group_state(row: tuple[str, str, int | None, str | None, str | None, str | None]) -> GroupState:
    group_id, evidence, member_count, lives, fullness, owner = row
    return GroupState(
        group_id,
        profile_of(evidence),
        Roster(lives_of(lives), member_count or 0) if lives else Roster(),
        fullness_of(fullness) if fullness else Fullness(),
        member_of(owner).exited if owner else NEVER,
    )


def _page_of_ids(condition: GroupFilter, after: str, limit: int) -> tuple[str, list[_Argument]]:
    """Return a query for the ids of one page of groups, and its arguments."""
    behind = ("{id} > ?", after)
    if not condition.prefix:
        return _ids(condition, [behind], limit)
    prefix, above = condition.prefix, _above_prefix(condition.prefix)
    start = behind if after >= prefix else ("{id} >= ?", prefix)
    by_id, of_ids = _ids(condition, [start, *_below("{id}", above)], limit)
    named = [behind, ("profiles.name >= ?", prefix), *_below("profiles.name", above)]
    by_name, of_names = _ids(condition, named, limit, index=" INDEXED BY profiles_by_name")
    return f"SELECT * FROM ({by_id}) AS by_id UNION SELECT * FROM ({by_name}) AS by_name", [*of_ids, *of_names]


def _ids(
    condition: GroupFilter, bounds: Sequence[tuple[str, _Argument]], limit: int, *, index: str = ""
) -> tuple[str, list[_Argument]]:
    """Return a query for the first ids within some bounds that meet the condition, and its arguments."""
    group_id = "fullness.group_id" if condition.is_full else "profiles.group_id"
    source = f"profiles{index} LEFT JOIN fullness ON fullness.group_id = profiles.group_id"
    if condition.is_full:
        source = "fullness INDEXED BY fullness_full CROSS JOIN profiles ON profiles.group_id = fullness.group_id"
    conditions: list[tuple[str, _Argument]] = [*bounds]
    conditions += [("profiles.type = ?", condition.type)] if condition.type is not None else []
    conditions += [("profiles.status = ?", condition.status)] if condition.status is not None else []
    clauses = " AND ".join(clause.format(id=group_id) for clause, _ in conditions)
    if condition.is_full is not None:
        clauses += " AND is_full = 1" if condition.is_full else " AND COALESCE(is_full, 0) = 0"
    page = f"SELECT {group_id} FROM {source} WHERE {clauses} ORDER BY {group_id} LIMIT ?"
    return page, [*(argument for _, argument in conditions), limit]


def _below(column: str, end: str | None) -> list[tuple[str, _Argument]]:
    return [] if end is None else [(f"{column} < ?", end)]


def _above_prefix(prefix: str) -> str | None:
    """Return the least text above every text with this prefix, None if there is none."""
    for end in range(len(prefix), 0, -1):
        following = ord(prefix[end - 1]) + 1
        if following <= sys.maxunicode:
            return prefix[: end - 1] + chr(0xE000 if following == 0xD800 else following)
    return None
