"""The filter of the list of groups, and the SQL for a page of the list."""

import sys
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from projector.read_model.schema import INDEXED_LENGTH, indexed_part

_Condition: TypeAlias = tuple[str, str]
"""An SQL expression with one placeholder, and the argument for it."""


class GroupFilter(NamedTuple):
    """The conditions that groups must meet; None is no condition.

    A group meets `prefix` if its name or its id starts with it; case matters.
    """

    type: str | None = None
    status: str | None = None
    is_full: bool | None = None
    prefix: str | None = None


def page_query(group_filter: GroupFilter, after: str, limit: int) -> tuple[str, list[str | int]]:
    """Return a query, and its arguments, for ids of groups that meet a filter, after the id `after`.

    The first `limit` of these ids are among the results; there may be more, in any order.
    """
    group_id = _id_column(group_filter)
    prefix = group_filter.prefix
    if not prefix:
        return _first_ids(group_filter, [(f"{group_id} > ?", after)], limit)
    # A query for each of the two indexes, by id and by name. Both are limited to a page, since either may fill it.
    start = (f"{group_id} > ?", after) if after >= prefix else (f"{group_id} >= ?", prefix)
    by_id, id_arguments = _first_ids(group_filter, [start, *_below_end(group_id, prefix)], limit)
    named = [(f"{group_id} > ?", after), *_with_prefix("profiles.name", prefix)]
    if part := _always_indexed(prefix):
        named += _with_prefix(indexed_part("profiles.name"), part)
    by_name, name_arguments = _first_ids(group_filter, named, limit, hint=" INDEXED BY profiles_by_name")
    return (
        f"SELECT * FROM ({by_id}) AS by_id UNION SELECT * FROM ({by_name}) AS by_name",
        [*id_arguments, *name_arguments],
    )


def _first_ids(
    group_filter: GroupFilter, bounds: Iterable[_Condition], limit: int, *, hint: str = ""
) -> tuple[str, list[str | int]]:
    """Return a query, and its arguments, for the first ids within bounds that meet the filter, apart from its prefix.

    `hint` names the index to use on `profiles`.
    """
    group_id = _id_column(group_filter)
    if group_filter.is_full:
        source = "fullness INDEXED BY fullness_full CROSS JOIN profiles ON profiles.group_id = fullness.group_id"
    else:
        source = f"profiles{hint} LEFT JOIN fullness ON fullness.group_id = profiles.group_id"
    conditions = [*bounds]
    if group_filter.type is not None:
        conditions.append(("profiles.type = ?", group_filter.type))
        if _always_indexed(group_filter.type) == group_filter.type:
            conditions.append((f"{indexed_part('profiles.type')} = ?", group_filter.type))
    if group_filter.status is not None:
        conditions.append(("profiles.status = ?", group_filter.status))
    expressions = [expression for expression, _ in conditions]
    if group_filter.is_full is not None:
        expressions.append("is_full = 1" if group_filter.is_full else "COALESCE(is_full, 0) = 0")
    return (
        f"SELECT {group_id} FROM {source} WHERE {' AND '.join(expressions)} ORDER BY {group_id} LIMIT ?",
        [*(argument for _, argument in conditions), limit],
    )


def _id_column(group_filter: GroupFilter) -> str:
    """Return the id of the table that is read first, in the order of its ids."""
    return "fullness.group_id" if group_filter.is_full else "profiles.group_id"


def _always_indexed(text: str) -> str:
    """Return the beginning of a text that the indexed part of every value with this beginning contains.

    PostgreSQL stores some characters as two, and SQLite's functions stop at NUL.
    """
    return text.partition("\x00")[0][: INDEXED_LENGTH // 2]


def _with_prefix(column: str, prefix: str) -> list[_Condition]:
    return [(f"{column} >= ?", prefix), *_below_end(column, prefix)]


def _below_end(column: str, prefix: str) -> list[_Condition]:
    """Return the upper bound of the texts that start with a prefix, if they have one."""
    end = _end_of_prefix(prefix)
    return [] if end is None else [(f"{column} < ?", end)]


def _end_of_prefix(prefix: str) -> str | None:
    """Return the least text that is greater than every text with this prefix, None if there is none."""
    for length in range(len(prefix), 0, -1):
        following = ord(prefix[length - 1]) + 1
        if following <= sys.maxunicode:
            # Surrogates are not text: the code point after U+D7FF is U+E000.
            return prefix[: length - 1] + chr(0xE000 if following == 0xD800 else following)
    return None
