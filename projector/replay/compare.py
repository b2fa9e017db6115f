"""Comparison of two read models, row by row."""

from collections.abc import Iterator, Sequence
from heapq import merge
from typing import Any, NamedTuple

from projector.projection import Projection
from projector.read_model.rows import TableRows
from projector.read_model.unit_of_work import ReadTransaction


class Difference(NamedTuple):
    """A row that differs between the live and the rebuilt read model; None means that there is no such row."""

    projection: str
    table: str
    key: tuple[str, ...]
    live: tuple[Any, ...] | None
    rebuilt: tuple[Any, ...] | None


def differences(
    live: ReadTransaction, rebuilt: ReadTransaction, projections: Sequence[Projection], group_id: str | None = None
) -> Iterator[Difference]:
    """Yield the differences between all rows, or one group's, group by group. Raises ReadModelUnavailable."""
    tables = [
        _differences(projection.name, *pair)
        for projection in projections
        for pair in zip(live.rows(projection.name, group_id), rebuilt.rows(projection.name, group_id), strict=True)
    ]
    return merge(*tables, key=lambda difference: difference.key[0])


def _differences(projection: str, live: TableRows, rebuilt: TableRows) -> Iterator[Difference]:
    width = live.width
    left, right = next(live.values, None), next(rebuilt.values, None)
    while left is not None or right is not None:
        if left == right:
            left, right = next(live.values, None), next(rebuilt.values, None)
            continue
        key = min(row[:width] for row in (left, right) if row is not None)
        live_row = rebuilt_row = None
        if left is not None and left[:width] == key:
            live_row, left = left, next(live.values, None)
        if right is not None and right[:width] == key:
            rebuilt_row, right = right, next(rebuilt.values, None)
        yield Difference(projection, live.table, key, live_row, rebuilt_row)
