"""Reading events in batches, each bounded by a number of events and of bytes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from projector.domain.events import Recorded
from projector.event_store import EventReader

MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""A thousand events of the usual size take less than one mebibyte; a single event may be larger than this."""

_STREAM_BATCH_SIZE: Final = 500

_Item = TypeVar("_Item")


def take_batch(items: Iterable[_Item], size_of: Callable[[_Item], int]) -> list[_Item]:
    """Return the first items, up to and including the one that makes them larger than MAX_BATCH_BYTES."""
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += size_of(item)
        if size > MAX_BATCH_BYTES:
            break
    return batch


def history(events: EventReader, after: int, batch_size: int) -> Iterator[Recorded]:
    """Yield all events after a position, in order. Raises StoreUnavailable."""
    while batch := events.read(after, batch_size):
        yield from batch
        after = batch[-1].position


def group_history(events: EventReader, group_id: str, after_version: int, batch_size: int) -> Iterator[Recorded]:
    """Yield one group's events after a version, in order. Raises StoreUnavailable."""
    for batch in _group_batches(events, group_id, after_version, batch_size):
        yield from batch


def stream(events: EventReader, group_id: str, through: int) -> Iterator[list[Recorded]]:
    """Yield one group's events up to a position, in order, in batches. Raises StoreUnavailable."""
    for batch in _group_batches(events, group_id, 0, _STREAM_BATCH_SIZE):
        if batch[-1].position <= through:
            yield batch
            continue
        if wanted := [recorded for recorded in batch if recorded.position <= through]:
            yield wanted
        return


def _group_batches(events: EventReader, group_id: str, after_version: int, batch_size: int) -> Iterator[list[Recorded]]:
    while batch := events.read_group(group_id, after_version, batch_size):
        yield batch
        after_version = batch[-1].version
