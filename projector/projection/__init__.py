"""Projections: a batch of recorded events, through the domain's folds, into the read model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from projector.domain.events import UndecodableEvent
from projector.projection.stretches import stretches
from projector.read_model import ReadModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from projector.domain.events import Recorded
    from projector.projection.stretches import Stretch
    from projector.read_model import Tables, Work


class CannotApply(Exception):
    """A projection cannot apply an event; the text says why."""


class Projection(Protocol):
    """Folds events into tables of its own; applying an event again changes nothing."""

    name: str
    version: int

    def apply(self, tables: Tables, batch: Sequence[Stretch]) -> None:
        """Fold the batch into the tables."""


def project(work: Work, projection: Projection, batch: Sequence[Recorded], *, now_ms: int) -> None:
    """Apply what a projection has not seen of the batch; set aside, one by one, the events it cannot apply.

    Rows that another version of the projection keeps are left to it.

    Raises ReadModelUnavailable if the fault is the read model's and not an event's.
    """
    reached = work.checkpoints()[projection.name]
    if reached.version != projection.version:
        return
    fresh = [recorded for recorded in batch if recorded.position > reached.position]
    if fresh and _applied(work, projection, fresh) is not None:
        _one_by_one(work, projection, fresh, now_ms)


def refold(
    work: Work, projection: Projection, group_id: str, stream: Iterable[Sequence[Recorded]], *, now_ms: int
) -> None:
    """Replace a group's rows by what its events, from the first, make of it; what cannot be applied is set aside.

    `stream` must end at the checkpoint, which is left where it is.

    Raises ReadModelUnavailable.
    """
    noted = {note.position for note in work.notes() if note.projection == projection.name}
    work.forget(projection.name, group_id)
    for batch in stream:
        for recorded in batch:
            if recorded.position in noted:
                work.settle(projection.name, recorded.position)
        if _applied(work, projection, batch) is not None:
            _one_by_one(work, projection, batch, now_ms)


def _one_by_one(work: Work, projection: Projection, batch: Sequence[Recorded], now_ms: int) -> None:
    for recorded in batch:
        if error := _applied(work, projection, [recorded]):
            reason = f"{type(error).__name__}: {error}"
            work.set_aside(projection.name, recorded.position, reason=reason, at=now_ms)


def _applied(work: Work, projection: Projection, batch: Sequence[Recorded]) -> Exception | None:
    try:
        with work.advance(projection.name, through=batch[-1].position) as tables:
            require_decoded(batch)
            projection.apply(tables, stretches(batch))
    except ReadModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an event breaks, the others must go on
        return error
    return None


def require_decoded(batch: Sequence[Recorded]) -> None:
    """Raise CannotApply if a batch has an event that cannot be decoded."""
    for recorded in batch:
        if isinstance(recorded.event, UndecodableEvent):
            raise CannotApply(recorded.event.reason)
