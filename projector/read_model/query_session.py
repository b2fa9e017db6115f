"""Queries of the present state, in SQL for both databases. Each uses an index; its cost is bounded."""

from typing import Any, Final, NamedTuple, cast

import msgspec

from projector.clock import to_rfc3339
from projector.database import Connection
from projector.domain.limits import utf8_length
from projector.domain.lives import NEVER, Moment
from projector.read_model.group_filter import GroupFilter, GroupSearch
from projector.read_model.groups import RosterPage
from projector.read_model.pages import MAX_EXAMINED, MAX_PAGE_BYTES, Page, take_page
from projector.read_model.rows import Mark, SetAside
from projector.read_model.shapes import Group, UserGroup, as_owner, optional_time
from projector.read_model.stored_states import StoredStates
from projector.read_model.unit_of_work import read_forgotten_through, read_mark, set_aside_events

_TEXTS: Final = "name, introduction, notification, face_url, custom_fields, attributes"
_SELECT_GROUPS: Final = (
    "SELECT groups.group_id, type, status, name, introduction, notification, face_url, owner, custom_fields,"
    " attributes, member_count, member_limit, roster_complete, is_full, full_at, created_at, dismissed_at,"
    " updated_at, position FROM groups LEFT JOIN profiles ON profiles.group_id = groups.group_id"
    " WHERE groups.group_id"
)
_SELECT_ROSTER: Final = (
    "SELECT member_count, roster_complete, owner, roster_floor_at, roster_floor_position FROM groups WHERE group_id = ?"
)
_OF_ROSTER: Final = "FROM members WHERE group_id = ? AND user_id > ?"
# The rows examined keep their order; to sort them again would be to examine all.
_SELECT_ABOVE_FLOOR: Final = (
    f"SELECT shown FROM (SELECT shown, entered_at, entered_position {_OF_ROSTER} ORDER BY user_id LIMIT {MAX_EXAMINED})"
    " AS examined WHERE (entered_at, entered_position) > (?, ?) LIMIT ?"
)
_ABOVE_FLOOR: Final = "(entered_at, entered_position) > (roster_floor_at, roster_floor_position)"
_SELECT_MEMBER: Final = (
    "SELECT shown, owner FROM members CROSS JOIN groups ON groups.group_id = members.group_id"
    f" WHERE members.group_id = ? AND user_id = ? AND {_ABOVE_FLOOR}"
)
_OF_USER: Final = "FROM members INDEXED BY members_by_user{joined} WHERE user_id = ? AND members.group_id > ?"
_SELECT_GROUPS_OF: Final = (
    "SELECT members.group_id, user_id = owner, role, joined_at "
    + _OF_USER.format(joined=" CROSS JOIN groups ON groups.group_id = members.group_id")
    + f" AND {_ABOVE_FLOOR}"
)


class _UserId(msgspec.Struct):
    user_id: str


_decode_user_id: Final = msgspec.json.Decoder(_UserId).decode


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

    def reached(self) -> int:
        """Return the position that every projection has reached."""
        return min(self.positions().values(), default=0)

    def mark(self) -> Mark | None:
        """Return the newest event in the read model, None before the first."""
        return read_mark(self._connection)

    def forgotten_through(self) -> int:
        """Return the newest forgetting when this read model was built."""
        return read_forgotten_through(self._connection)

    def group(self, group_id: str) -> Group | None:
        row = self._row(_SELECT_GROUPS + " = ?", (group_id,))
        return _group(row) if row else None

    def groups(self, group_filter: GroupFilter, after: str, limit: int) -> Page[Group]:
        """Return a page of the groups that meet a filter, after an id, by id."""
        found = GroupSearch(self._connection, group_filter, after, limit + 1).run()
        if not found.ids:
            return Page([], is_last=found.examined is None, examined=found.examined)
        rows = self._connection.bounded(
            f"{_SELECT_GROUPS} IN ({', '.join('?' * len(found.ids))}) ORDER BY 1",
            found.ids,
            order="group_id",
            text=f"CONCAT({_TEXTS})",
            max_bytes=MAX_PAGE_BYTES,
        )
        page = take_page(map(_group, rows), limit, _group_size)
        examined = found.examined if page.is_last else None
        return Page(page, is_last=page.is_last and examined is None, examined=examined)

    def roster(self, group_id: str, after: str, limit: int) -> RosterPage | None:
        row = self._row(_SELECT_ROSTER, (group_id,))
        if row is None:
            return None
        member_count, roster_complete, owner, *floor = row
        page = self._members(group_id, after, limit, cast("Moment", tuple(floor))) if member_count else _NOBODY
        if owner is not None and (own := self._own(group_id, owner)) in page:
            page[page.index(own)] = as_owner(own)
        return RosterPage(member_count, bool(roster_complete), page)

    def member(self, group_id: str, user_id: str) -> msgspec.Raw | None:
        row = self._row(_SELECT_MEMBER, (group_id, user_id))
        if row is None:
            return None
        shown, owner = row
        return msgspec.Raw((as_owner(shown) if owner == user_id else shown).encode())

    def knows_user(self, user_id: str) -> bool:
        return bool(self.stored_states.groups_ever_of(user_id, "", 1))

    def groups_of(self, user_id: str, after: str, limit: int) -> Page[UserGroup]:
        end = self._examined("members.group_id", _OF_USER.format(joined=""), (user_id, after))
        query, arguments = _SELECT_GROUPS_OF, [user_id, after]
        if end is not None:
            query += " AND members.group_id <= ?"
            arguments.append(end)
        query += " ORDER BY members.group_id LIMIT ?"
        page = take_page(self._connection.execute(query, (*arguments, limit + 1)), limit, _user_group_size)
        examined = end if page.is_last else None
        return Page(map(_user_group, page), is_last=page.is_last and examined is None, examined=examined)

    def set_aside_events(self) -> list[SetAside]:
        """Return the events set aside, by position."""
        return set_aside_events(self._connection)

    def counts(self) -> Counts:
        """Count groups and members. Reads a row of every group."""
        return Counts(
            *self._row(
                "SELECT COUNT(*), COUNT(CASE WHEN status = 'active' THEN 1 END),"
                " COUNT(CASE WHEN is_full = 1 THEN 1 END), CAST(COALESCE(SUM(member_count), 0) AS bigint) FROM groups"
            )
        )

    def _members(self, group_id: str, after: str, limit: int, floor: Moment) -> Page[str]:
        """Return a page of the members who joined after the floor, each with a role that is not the owner's."""
        if floor == NEVER:
            query = f"SELECT shown {_OF_ROSTER} ORDER BY user_id LIMIT ?"
            rows = self._connection.execute(query, (group_id, after, limit + 1))
        else:
            rows = self._connection.execute(_SELECT_ABOVE_FLOOR, (group_id, after, *floor, limit + 1))
        page = _take_texts([shown for (shown,) in rows], limit)
        if not page.is_last:
            return Page(page, is_last=False, examined=_decode_user_id(page[-1]).user_id)
        end = None if floor == NEVER else self._examined("user_id", _OF_ROSTER, (group_id, after))
        return Page(page, is_last=end is None, examined=end)

    def _own(self, group_id: str, owner: str) -> str:
        row = self._row("SELECT shown FROM members WHERE group_id = ? AND user_id = ?", (group_id, owner))
        return str(row[0]) if row else ""

    def _examined(self, column: str, rows: str, arguments: tuple[str, ...]) -> str | None:
        """Return the id of the last row that a page may examine; None if there are fewer rows."""
        query = f"SELECT {column} {rows} ORDER BY {column} LIMIT 1 OFFSET {MAX_EXAMINED - 1}"
        row = self._row(query, arguments)
        return row[0] if row else None

    def _row(self, query: str, arguments: tuple[str, ...] = ()) -> Any:
        return self._connection.execute(query, arguments).fetchone()


_NOBODY: Final = Page[str]([], is_last=True)


def _take_texts(texts: list[str], limit: int) -> Page[str]:
    """Return `take_page` of texts, whose sizes are looked at only if they may be too large together."""
    if sum(map(len, texts)) * 4 > MAX_PAGE_BYTES:
        return take_page(texts, limit, utf8_length)
    return Page(texts[:limit], is_last=len(texts) <= limit)


def _group_size(group: Group) -> int:
    texts = (group.group_id, group.name, group.introduction, group.notification, group.face_url)
    objects = (cast("msgspec.Raw", each) for each in (group.custom_fields, group.attributes))
    return sum(utf8_length(text or "") for text in texts) + sum(memoryview(each).nbytes for each in objects)


def _user_group_size(row: tuple[Any, ...]) -> int:
    return utf8_length(row[0])


def _group(row: tuple[Any, ...]) -> Group:
    group = Group(*row)
    group.custom_fields, group.attributes = _object(group.custom_fields), _object(group.attributes)
    group.roster_complete, group.is_full = bool(group.roster_complete), bool(group.is_full)
    group.full_at, group.created_at, group.dismissed_at = map(
        optional_time, cast("tuple[int | None, ...]", (group.full_at, group.created_at, group.dismissed_at))
    )
    group.updated_at = to_rfc3339(cast("int", group.updated_at))
    return group


def _object(text: Any) -> dict[str, str]:
    """Return the JSON of an object, which is sent as it is stored."""
    return cast("dict[str, str]", msgspec.Raw((text or "{}").encode()))


def _user_group(row: tuple[Any, ...]) -> UserGroup:
    group_id, is_owner, role, joined_at = row
    return UserGroup(group_id, "Owner" if is_owner else role, to_rfc3339(joined_at))
