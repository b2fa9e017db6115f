"""Queries of the present state, in SQL for both databases. Each uses an index; its cost is bounded by its result."""

from typing import Final, NamedTuple, TypeAlias

from projector.database import Connection
from projector.domain.fullness import Fullness
from projector.domain.limits import utf8_length
from projector.domain.lives import NEVER, Register
from projector.read_model.evidence import decode_fullness, decode_lives, decode_member, decode_profile
from projector.read_model.group_filter import GroupFilter, page_query
from projector.read_model.groups import GroupState, Membership
from projector.read_model.pages import MAX_PAGE_BYTES, Page, take_page
from projector.read_model.rows import Mark, Roster, SetAside
from projector.read_model.stored_states import StoredStates
from projector.read_model.unit_of_work import read_forgotten_through, read_mark, set_aside_events

_SELECT_GROUPS: Final = (
    "SELECT profiles.group_id, profiles.evidence, member_count, lives,"
    " fullness.evidence AS fullness_evidence, members.evidence AS owner_evidence"
    " FROM profiles LEFT JOIN fullness ON fullness.group_id = profiles.group_id"
    " LEFT JOIN rosters ON rosters.group_id = profiles.group_id"
    " LEFT JOIN members ON members.group_id = profiles.group_id AND members.user_id = profiles.owner"
    " WHERE profiles.group_id"
)
_SELECT_MEMBERS: Final = (
    "SELECT members.group_id, members.user_id, owner_at, owner_position, owner, members.evidence"
    " FROM members INDEXED BY {index} LEFT JOIN profiles ON profiles.group_id = members.group_id WHERE standing = 1"
)
_SELECT_ROSTER: Final = (
    _SELECT_MEMBERS.format(index="members_present")
    + " AND members.group_id = ? AND user_id > ? ORDER BY user_id LIMIT ?"
)
_SELECT_MEMBER: Final = _SELECT_MEMBERS.format(index="members_present") + " AND members.group_id = ? AND user_id = ?"
_SELECT_GROUPS_OF: Final = (
    _SELECT_MEMBERS.format(index="members_by_user")
    + " AND user_id = ? AND members.group_id > ? ORDER BY members.group_id LIMIT ?"
)


_GroupRow: TypeAlias = tuple[str, str, int | None, str | None, str | None, str | None]
_MembershipRow: TypeAlias = tuple[str, str, int | None, int | None, str | None, str]


class Counts(NamedTuple):
    """Totals over all groups; `members` counts memberships: a user in two groups counts twice."""

    groups: int
    active_groups: int
    full_groups: int
    members: int


class QuerySession:
    """`Groups` as of one commit, on a connection inside a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def stored_states(self) -> StoredStates:
        """Earlier states, as projections have stored them."""
        return StoredStates(self._connection)

    def positions(self) -> dict[str, int]:
        """Return the position that each projection has reached."""
        return dict(iter(self._connection.execute("SELECT projection, position FROM checkpoints")))

    def mark(self) -> Mark | None:
        """Return the newest event in the read model, None before the first."""
        return read_mark(self._connection)

    def forgotten_through(self) -> int:
        """Return the newest forgetting when this read model was built."""
        return read_forgotten_through(self._connection)

    def group(self, group_id: str) -> GroupState | None:
        row = self._connection.execute(_SELECT_GROUPS + " = ?", (group_id,)).fetchone()
        return _group_state(row) if row else None

    def groups(self, group_filter: GroupFilter, after: str, limit: int) -> Page[GroupState]:
        """Return a page of the groups that meet a filter, after an id, by id."""
        query, arguments = page_query(group_filter, after, limit + 1)
        rows = self._connection.bounded(
            f"{_SELECT_GROUPS} IN ({query}) ORDER BY 1 LIMIT ?",
            (*arguments, limit + 1),
            order="group_id",
            text="evidence",
            max_bytes=MAX_PAGE_BYTES,
        )
        page = take_page(rows, limit, _group_size)
        return Page(map(_group_state, page), is_last=page.is_last)

    def members(self, group_id: str, after: str, limit: int) -> Page[Membership]:
        return self._page(_SELECT_ROSTER, (group_id, after, limit + 1), limit)

    def member(self, group_id: str, user_id: str) -> Membership | None:
        return next(iter(self._page(_SELECT_MEMBER, (group_id, user_id), 1)), None)

    def knows_user(self, user_id: str) -> bool:
        row = self._connection.execute("SELECT 1 FROM members WHERE user_id = ? LIMIT 1", (user_id,)).fetchone()
        return row is not None

    def groups_of(self, user_id: str, after: str, limit: int) -> Page[Membership]:
        return self._page(_SELECT_GROUPS_OF, (user_id, after, limit + 1), limit)

    def set_aside_events(self) -> list[SetAside]:
        """Return the events set aside, by position."""
        return set_aside_events(self._connection)

    def counts(self) -> Counts:
        """Count groups and members. Reads a row of every group."""
        groups, active = self._connection.execute(
            "SELECT COUNT(*), COUNT(CASE WHEN status = 'active' THEN 1 END) FROM profiles"
        ).fetchone()
        (full,) = self._connection.execute("SELECT COUNT(*) FROM fullness WHERE is_full = 1").fetchone()
        (members,) = self._connection.execute(
            "SELECT CAST(COALESCE(SUM(member_count), 0) AS bigint) FROM rosters"
        ).fetchone()
        return Counts(groups, active, full, members)

    def _page(self, query: str, arguments: tuple[str | int, ...], limit: int) -> Page[Membership]:
        page = take_page(self._connection.execute(query, arguments), limit, _membership_size)
        return Page(
            [
                Membership(group_id, user_id, decode_member(evidence), Register((at or 0, position or 0), owner))
                for group_id, user_id, at, position, owner, evidence in page
            ],
            is_last=page.is_last,
        )


def _membership_size(row: _MembershipRow) -> int:
    return utf8_length(row[-1]) + 4 * (len(row[0]) + len(row[1]))


def _group_size(row: _GroupRow) -> int:
    return utf8_length(row[1])


def _group_state(row: _GroupRow) -> GroupState:
    group_id, evidence, member_count, lives, fullness, owner = row
    return GroupState(
        group_id,
        decode_profile(evidence),
        Roster(decode_lives(lives), member_count or 0) if lives else Roster(),
        decode_fullness(fullness) if fullness else Fullness(),
        decode_member(owner).exited if owner else NEVER,
    )
