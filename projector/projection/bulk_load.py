"""Bulk load: whole streams, group by group, through the projections into an empty read model.

No row is read before it is written, and rows are written in the order of their keys.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from projector.domain.events import Recorded
from projector.projection import Batch, Projection
from projector.read_model import ReadModelUnavailable
from projector.read_model.buffered_tables import BufferedTables
from projector.read_model.unit_of_work import UnitOfWork


def load(
    work: UnitOfWork,
    projections: Sequence[Projection],
    streams: Iterable[Sequence[Recorded]],
    *,
    through: int,
    on_progress: Callable[[int], None],
) -> set[str]:
    """Fold streams, ordered by group and version, whose events are all at or before position `through`.

    `on_progress` is called with the number of events of each batch. Return the groups with an event that could not be
    applied; their rows are incomplete.

    Raises ReadModelUnavailable.
    """
    failed: set[str] = set()
    names = [projection.name for projection in projections]
    with _without_garbage_collection(), work.advance(*names, through=through) as tables:
        buffer = BufferedTables(tables)
        for events in streams:
            intact = [recorded for recorded in events if recorded.event.group_id not in failed]
            failed |= _fold(buffer, projections, intact)
            on_progress(len(events))
        failed |= _write(buffer, incomplete=None)
    return failed


def _fold(buffer: BufferedTables, projections: Sequence[Projection], events: Sequence[Recorded]) -> set[str]:
    """Fold a batch and write the groups that are complete; return the groups lost to a failure."""
    if not events:
        return set()
    try:
        slices = Batch(events).slices
        for projection in projections:
            projection.apply(buffer, slices)
    except ReadModelUnavailable:
        raise
    except Exception:  # noqa: BLE001 - an event can break a projection in any way; other groups must be loaded
        return buffer.discard() | {recorded.event.group_id for recorded in events}
    return _write(buffer, incomplete=events[-1].event.group_id)


def _write(buffer: BufferedTables, *, incomplete: str | None) -> set[str]:
    """Write all groups but an incomplete one, whose stream may go on; return the groups lost to a failure."""
    try:
        buffer.write(incomplete=incomplete)
    except ReadModelUnavailable:
        raise
    except Exception:  # noqa: BLE001 - as above
        return buffer.discard()
    return set()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause garbage collection: folds create no cycles, and looking for them takes a third of a bulk load."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
