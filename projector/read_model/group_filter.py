"""The filter of the list of groups, and the search for a page of their ids, which examines few rows."""

import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from projector.database import Connection
from projector.read_model.pages import MAX_EXAMINED
from projector.read_model.schema import INDEXED_LENGTH, indexed_part

_Condition: TypeAlias = tuple[str, tuple[str, ...]]
"""An SQL expression with placeholders, and the arguments for them."""

_NAMED: Final = "profiles INDEXED BY profiles_by_name"


class GroupFilter(NamedTuple):
    """The conditions that groups must meet; None is no condition.

    A group meets `prefix` if its name or its id starts with it; case matters.
    """

    type: str | None = None
    status: str | None = None
    is_full: bool | None = None
    prefix: str | None = None


class FoundGroups(NamedTuple):
    """Ids in order. If `examined` is not None, only groups up to this id were examined, and others follow."""

    ids: list[str]
    examined: str | None = None


class GroupSearch:
    """Searches for the first ids after `after` of groups that meet a filter, at most `limit`."""

    def __init__(self, connection: Connection, group_filter: GroupFilter, after: str, limit: int) -> None:
        self._connection = connection
        self._conditions = _conditions(group_filter)
        self._index = _index(group_filter)
        self._after = after
        self._limit = limit
        self._prefix = group_filter.prefix or ""

    def run(self) -> FoundGroups:
        if not self._prefix:
            return self._by_id([], MAX_EXAMINED)
        # A group may have the prefix in its id or in its name; each of the two has an index.
        half = MAX_EXAMINED // 2
        named = _with_prefix("name", self._prefix)
        if part := _always_indexed(self._prefix):
            named += _with_prefix(indexed_part("name"), part)
        if self._count_named(named, half) == half:
            either = _any_of(_with_prefix("group_id", self._prefix), _with_prefix("name", self._prefix))
            return self._by_id([], half, either)
        by_id = self._by_id(_with_prefix("groups.group_id", self._prefix), half)
        ids = sorted({*by_id.ids, *self._by_name(named)})
        if by_id.examined is not None:
            ids = [group_id for group_id in ids if group_id <= by_id.examined]
        return FoundGroups(ids[: self._limit], by_id.examined)

    def _by_id(self, bounds: list[_Condition], max_examined: int, *others: _Condition) -> FoundGroups:
        """Examine groups in the order of their ids, within bounds."""
        # Only the higher of two lower bounds: a database may begin at the other.
        start = [] if bounds and self._after < self._prefix else [("groups.group_id > ?", (self._after,))]
        bounds = bounds[1:] if start else bounds
        where, arguments = _all_of([*start, *self._index.conditions, *bounds])
        examined = (
            f"SELECT groups.group_id, type, status, is_full, name FROM groups{self._index.hint}"
            " LEFT JOIN profiles ON profiles.group_id = groups.group_id"
            f" WHERE {where} ORDER BY groups.group_id"
        )
        rest = [*others, *(each for each in self._conditions if each not in self._index.conditions)]
        if not rest:
            return FoundGroups(self._ids(f"{examined} LIMIT ?", [*arguments, self._limit]))
        # The rows examined keep their order; to sort them again would be to examine all.
        meets, more_arguments = _all_of(rest)
        query = f"SELECT group_id FROM ({examined} LIMIT ?) AS examined WHERE {meets} LIMIT ?"
        ids = self._ids(query, [*arguments, max_examined, *more_arguments, self._limit])
        if len(ids) == self._limit:
            return FoundGroups(ids)
        last = self._ids(f"{examined} LIMIT 1 OFFSET ?", [*arguments, max_examined - 1])
        return FoundGroups(ids, last[0] if last else None)

    def _by_name(self, named: list[_Condition]) -> list[str]:
        where, arguments = _all_of([*named, ("profiles.group_id > ?", (self._after,)), *self._conditions])
        source = f"{_NAMED} CROSS JOIN groups ON groups.group_id = profiles.group_id"
        query = f"SELECT groups.group_id FROM {source} WHERE {where} ORDER BY groups.group_id LIMIT ?"
        return self._ids(query, [*arguments, self._limit])

    def _count_named(self, named: list[_Condition], limit: int) -> int:
        where, arguments = _all_of(named)
        query = f"SELECT COUNT(*) FROM (SELECT 1 FROM {_NAMED} WHERE {where} LIMIT ?) AS named"
        return int(self._connection.execute(query, (*arguments, limit)).fetchone()[0])

    def _ids(self, query: str, arguments: Sequence[str | int]) -> list[str]:
        return [row[0] for row in self._connection.execute(query, arguments)]


class _Index(NamedTuple):
    """The index whose groups are examined, and the conditions that all of them meet."""

    hint: str = ""
    conditions: tuple[_Condition, ...] = ()


def _index(group_filter: GroupFilter) -> _Index:
    """Return the index that is likely to leave the fewest groups."""
    if group_filter.is_full:
        return _Index(" INDEXED BY groups_full", (_IS_FULL,))
    if group_filter.type is not None:
        return _Index(" INDEXED BY groups_by_type", tuple(_of_type(group_filter.type)))
    if group_filter.status is not None:
        return _Index(" INDEXED BY groups_by_status", (("status = ?", (group_filter.status,)),))
    return _Index()


_IS_FULL: Final[_Condition] = ("is_full = 1", ())


def _conditions(group_filter: GroupFilter) -> list[_Condition]:
    conditions: list[_Condition] = []
    if group_filter.type is not None:
        conditions += _of_type(group_filter.type)
    if group_filter.status is not None:
        conditions.append(("status = ?", (group_filter.status,)))
    if group_filter.is_full is not None:
        conditions.append(_IS_FULL if group_filter.is_full else ("is_full = 0", ()))
    return conditions


def _of_type(name: str) -> list[_Condition]:
    conditions: list[_Condition] = [("type = ?", (name,))]
    if _always_indexed(name) == name:
        conditions.append((f"{indexed_part('type')} = ?", (name,)))
    return conditions


def _all_of(conditions: Sequence[_Condition]) -> tuple[str, list[str | int]]:
    where = " AND ".join(expression for expression, _ in conditions)
    return where, [argument for _, arguments in conditions for argument in arguments]


def _any_of(*alternatives: Sequence[_Condition]) -> _Condition:
    parts = [_all_of(conditions) for conditions in alternatives]
    expression = " OR ".join(f"({where})" for where, _ in parts)
    return f"({expression})", tuple(str(argument) for _, arguments in parts for argument in arguments)


def _always_indexed(text: str) -> str:
    """Return the beginning of a text that the indexed part of every value with this beginning contains.

    PostgreSQL stores some characters as two, and SQLite's functions stop at NUL.
    """
    return text.partition("\x00")[0][: INDEXED_LENGTH // 2]


def _with_prefix(column: str, prefix: str) -> list[_Condition]:
    """Return the bounds of the texts that start with a prefix; some prefixes have no upper one."""
    lowest: _Condition = (f"{column} >= ?", (prefix,))
    end = _end_of_prefix(prefix)
    return [lowest] if end is None else [lowest, (f"{column} < ?", (end,))]


def _end_of_prefix(prefix: str) -> str | None:
    """Return the least text that is greater than every text with this prefix, None if there is none."""
    for length in range(len(prefix), 0, -1):
        following = ord(prefix[length - 1]) + 1
        if following <= sys.maxunicode:
            # Surrogates are not text: the code point after U+D7FF is U+E000.
            return prefix[: length - 1] + chr(0xE000 if following == 0xD800 else following)
    return None
