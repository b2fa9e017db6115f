"""Replay: the same loop over the same projections, into an empty read model beside the live one; then compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from projector.read_model import Row
from projector.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from projector.event_store import EventStore
    from projector.projection import Projection
    from projector.read_model import ReadModel, Tables

REPLAY_BATCH_SIZE: Final = 5_000


class Difference(NamedTuple):
    """A row that the live read model has otherwise than the events say; None is no such row."""

    projection: str
    table: str
    key: tuple[str, ...]
    live: tuple[object, ...] | None
    rebuilt: tuple[object, ...] | None


class Replayed(NamedTuple):
    """What a replay saw: the position at which both models were compared, and each row that differed."""

    position: int
    differences: list[Difference]


def replay(
    store: EventStore,
    live: ReadModel,
    empty: ReadModel,
    projections: Sequence[Projection],
    *,
    group_id: str | None = None,
    check: bool = False,
    advanced: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Rebuild from position 0 into `empty`, compare with `live` at the same position, and put right what differs.

    The comparison and the correction are one transaction on the live model, so readers see the one or the other.
    With `check`, nothing is put right. With `group_id`, only that group is compared and put right. `advanced` is
    told how many events each batch had.

    Raises StoreUnavailable and ReadModelUnavailable; the live model is then as it was.
    """
    following = Subscription(store, live, projections)
    rebuilding = Subscription(store, empty, projections, batch_size=REPLAY_BATCH_SIZE)
    rebuilding.catch_up(through=following.catch_up(), advanced=advanced)
    with live.transaction() as now:
        position = min(now.position(projection.name) for projection in projections)
        rebuilding.catch_up(through=position, advanced=advanced)
        with empty.transaction() as rebuilt:
            differences = []
            for projection in projections:
                with (
                    now.advance(projection.name, through=position) as live_tables,
                    rebuilt.advance(projection.name, through=position) as rebuilt_tables,
                ):
                    found = [*_compare(projection.name, live_tables, rebuilt_tables, group_id)]
                    for difference in [] if check else found:
                        live_tables.put(Row(difference.table, difference.key, difference.rebuilt))
                differences += found
    if not check:
        following.retry_set_aside()
    return Replayed(position, differences)


def _compare(projection: str, live: Tables, rebuilt: Tables, group_id: str | None) -> Iterator[Difference]:
    """Walk both models in key order, side by side, and yield what does not match."""
    ours, theirs = live.rows(projection, group_id), rebuilt.rows(projection, group_id)
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        row = min(side[:2] for side in (left, right) if side is not None)
        found, wanted = None, None
        if left is not None and left[:2] == row:
            found, left = left.values, next(ours, None)
        if right is not None and right[:2] == row:
            wanted, right = right.values, next(theirs, None)
        if found != wanted:
            yield Difference(projection, *row, found, wanted)
