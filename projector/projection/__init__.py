"""Projections: fold batches of recorded events into the read model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from projector.domain.events import Recorded, UndecodableEvent
from projector.event_store.fingerprint import mark_fingerprint
from projector.projection.slices import StreamSlice, slice_streams
from projector.read_model import ReadModelUnavailable, Tables
from projector.read_model.rows import Checkpoint, Mark
from projector.read_model.unit_of_work import UnitOfWork


class CannotApply(Exception):
    """A projection cannot apply an event; the text gives the reason."""


class Projection(Protocol):
    """Folds events into tables of its own. Applying an event again changes nothing."""

    name: str
    version: int

    def apply(self, tables: Tables, slices: Sequence[StreamSlice]) -> None:
        """Fold the events of these slices into the tables."""


def project(work: UnitOfWork, projections: Iterable[Projection], events: Sequence[Recorded], *, now_ms: int) -> None:
    """Apply the events that each projection has not seen, and save the mark.

    An event that a projection cannot apply is set aside for it. Projections whose rows another version has written are
    skipped.

    Raises ReadModelUnavailable if the read model, and not an event, is the cause of a failure.
    """
    batch, checkpoints = Batch(events), work.checkpoints()
    unseen = [
        (projection, rest)
        for projection in of_same_version(projections, checkpoints)
        if (rest := batch.after(checkpoints[projection.name].position)).events
    ]
    for projection, rest in unseen:
        apply_or_set_aside(work, projection, rest, now_ms=now_ms)
    if unseen:
        work.save_mark(mark_of(events[-1]))


def of_same_version(projections: Iterable[Projection], checkpoints: Mapping[str, Checkpoint]) -> list[Projection]:
    """Return the projections of which this version, and no other, has written the rows."""
    return [
        projection
        for projection in projections
        if (checkpoint := checkpoints.get(projection.name)) and checkpoint.version == projection.version
    ]


def mark_of(recorded: Recorded) -> Mark:
    """Return the mark of a read model whose newest event is this one."""
    return Mark(recorded.position, mark_fingerprint(recorded))


class Batch:
    """Consecutive events, cut into slices when the first projection needs them."""

    def __init__(self, events: Sequence[Recorded]) -> None:
        self.events = events

    def after(self, position: int) -> Batch:
        """Return the events after a position."""
        if not self.events or self.events[0].position > position:
            return self
        return Batch([recorded for recorded in self.events if recorded.position > position])

    @cached_property
    def slices(self) -> list[StreamSlice]:
        """The events by stream and block. Raises CannotApply if an event cannot be decoded."""
        for recorded in self.events:
            if isinstance(recorded.event, UndecodableEvent):
                raise CannotApply(recorded.event.reason)
        return slice_streams(self.events)


def apply_or_set_aside(work: UnitOfWork, projection: Projection, batch: Batch, *, now_ms: int) -> None:
    """Apply a batch; if that fails, apply its events one by one and set aside those that fail.

    Raises ReadModelUnavailable.
    """
    if _failure(work, projection, batch) is None:
        return
    for recorded in batch.events:
        if error := _failure(work, projection, Batch([recorded])):
            reason = f"{type(error).__name__}: {error}"
            work.set_aside(projection.name, recorded.position, reason=reason, at=now_ms)


def _failure(work: UnitOfWork, projection: Projection, batch: Batch) -> Exception | None:
    """Apply a batch, wholly or not at all; return the error if it failed."""
    try:
        with work.advance(projection.name, through=batch.events[-1].position) as tables:
            projection.apply(tables, batch.slices)
    except ReadModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - an event can break a projection in any way; the others must be applied
        return error
    return None
