"""Projections: a batch of recorded events, through the domain's folds, into the read model."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from projector.domain.events import UndecodableEvent
from projector.event_store.fingerprint import mark_fingerprint
from projector.projection.slices import slice_streams
from projector.read_model import ReadModelUnavailable
from projector.read_model.rows import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from projector.domain.events import Recorded
    from projector.projection.slices import StreamSlice
    from projector.read_model import Tables
    from projector.read_model.unit_of_work import UnitOfWork


class CannotApply(Exception):
    """A projection cannot apply an event; the text says why."""


class Projection(Protocol):
    """Folds events into tables of its own; applying an event again changes nothing."""

    name: str
    version: int

    def apply(self, tables: Tables, batch: Sequence[StreamSlice]) -> None:
        """Fold the batch into the tables."""


def project(work: UnitOfWork, projections: Iterable[Projection], events: Sequence[Recorded], *, now_ms: int) -> None:
    """Apply what each projection has not seen of the events; set aside, one by one, those it cannot apply.

    Rows that another version of a projection keeps are left to it.

    Raises ReadModelUnavailable if the fault is the read model's and not an event's.
    """
    reached, all_of_them = work.checkpoints(), _Batch(events)
    for projection in projections:
        if reached[projection.name].version != projection.version:
            continue
        batch = all_of_them.behind(reached[projection.name].position)
        if batch.events and _applied(work, projection, batch) is not None:
            _one_by_one(work, projection, batch.events, now_ms)


def refold(
    work: UnitOfWork, projection: Projection, group_id: str, stream: Iterable[Sequence[Recorded]], *, now_ms: int
) -> None:
    """Replace a group's rows by what its events, from the first, make of it; what cannot be applied is set aside.

    `stream` must end at the checkpoint, which is left where it is.

    Raises ReadModelUnavailable.
    """
    noted = {note.position for note in work.set_aside_events() if note.projection == projection.name}
    work.delete_group(projection.name, group_id)
    for events in stream:
        for recorded in events:
            if recorded.position in noted:
                work.resolve(projection.name, recorded.position)
        if _applied(work, projection, _Batch(events)) is not None:
            _one_by_one(work, projection, events, now_ms)


class _Batch:
    """Events in a row, which are cut into stretches once, for whoever asks first."""

    def __init__(self, events: Sequence[Recorded]) -> None:
        self.events = events

    def behind(self, position: int) -> _Batch:
        """Return the events behind a position."""
        if not self.events or self.events[0].position > position:
            return self
        return _Batch([recorded for recorded in self.events if recorded.position > position])

    @cached_property
    def slices(self) -> list[StreamSlice]:
        """The events, cut. Raises CannotApply if one of them cannot be decoded."""
        require_decoded(self.events)
        return slice_streams(self.events)


def _one_by_one(work: UnitOfWork, projection: Projection, events: Sequence[Recorded], now_ms: int) -> None:
    for recorded in events:
        if error := _applied(work, projection, _Batch([recorded])):
            reason = f"{type(error).__name__}: {error}"
            work.set_aside(projection.name, recorded.position, reason=reason, at=now_ms)


def _applied(work: UnitOfWork, projection: Projection, batch: _Batch) -> Exception | None:
    try:
        with work.advance(projection.name, through=batch.events[-1].position) as tables:
            projection.apply(tables, batch.slices)
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


def mark_of(recorded: Recorded) -> Mark:
    """Return the mark that a read model has whose newest event this is."""
    return Mark(recorded.position, mark_fingerprint(recorded))
