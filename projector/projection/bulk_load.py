"""Loading: whole streams, one group after the other, through the projections into an empty read model.

No row is read before it is written, and rows are written in the order of their keys.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

from projector.projection import require_decoded
from projector.projection.slices import slice_streams
from projector.read_model import ReadModelUnavailable
from projector.read_model.buffered_tables import BufferedTables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from projector.domain.events import Recorded
    from projector.projection import Projection
    from projector.read_model.unit_of_work import UnitOfWork


def load(
    work: UnitOfWork,
    projections: Sequence[Projection],
    streams: Iterable[Sequence[Recorded]],
    *,
    through: int,
    on_progress: Callable[[int], None],
) -> set[str]:
    """Fold streams, in order of group and of version, all of whose events are at most at position `through`.

    Return the groups of which an event could not be applied: their rows are not to be believed. `on_progress` is told
    how many events were folded.

    Raises ReadModelUnavailable.
    """
    failed: set[str] = set()
    names = (projection.name for projection in projections)
    with work.advance(*names, through=through) as tables, _no_garbage():
        held = BufferedTables(tables)
        for batch in streams:
            failed |= _folded(held, projections, [one for one in batch if one.event.group_id not in failed])
            on_progress(len(batch))
        failed |= _written(held, but=None)
    return failed


def _folded(held: BufferedTables, projections: Sequence[Projection], batch: Sequence[Recorded]) -> set[str]:
    """Apply a batch and write the groups that are complete; return those that are lost to a failure."""
    if not batch:
        return set()
    try:
        require_decoded(batch)
        cut = slice_streams(batch)
        for projection in projections:
            projection.apply(held, cut)
    except ReadModelUnavailable:
        raise
    except Exception:  # noqa: BLE001 - whatever an event breaks, the other groups must go on
        return held.drop() | {recorded.event.group_id for recorded in batch}
    return _written(held, but=batch[-1].event.group_id)


def _written(held: BufferedTables, *, but: str | None) -> set[str]:
    try:
        held.write(but=but)
    except ReadModelUnavailable:
        raise
    except Exception:  # noqa: BLE001 - as above
        return held.drop()
    return set()


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Pause the search for cycles: folds make none, and it costs a third of a bulk fold."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
