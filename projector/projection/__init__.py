"""Projections: a batch of recorded events, through the domain's folds, into the read model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from projector.domain.events import UndecodableEvent
from projector.read_model import ReadModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.read_model import Tables, Work


class CannotApply(Exception):
    """A projection cannot apply an event; the text says why."""


class Projection(Protocol):
    """Folds events into tables of its own; applying an event again changes nothing."""

    name: str
    version: int

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        """Fold the batch into the tables."""


def project(work: Work, projection: Projection, batch: Sequence[Recorded], *, now_ms: int) -> None:
    """Apply what a projection has not seen of the batch; set aside, one by one, the events it cannot apply.

    Rows that another version of the projection keeps are left to it.

    Raises ReadModelUnavailable if the fault is the read model's and not an event's.
    """
    if work.version(projection.name) != projection.version:
        return
    reached = work.position(projection.name)
    fresh = [recorded for recorded in batch if recorded.position > reached]
    if not fresh or _applied(work, projection, fresh) is None:
        return
    for recorded in fresh:
        if error := _applied(work, projection, [recorded]):
            reason = f"{type(error).__name__}: {error}"
            work.set_aside(projection.name, recorded.position, reason=reason, at=now_ms)


def retry(work: Work, projection: Projection, recorded: Recorded) -> bool:
    """Apply an event that was set aside; tell whether that worked now."""
    if _applied(work, projection, [recorded]) is not None:
        return False
    work.settle(projection.name, recorded.position)
    return True


def _applied(work: Work, projection: Projection, batch: Sequence[Recorded]) -> Exception | None:
    try:
        with work.advance(projection.name, through=batch[-1].position) as tables:
            _require_decoded(batch)
            projection.apply(tables, batch)
    except ReadModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an event breaks, the others must go on
        return error
    return None


def _require_decoded(batch: Sequence[Recorded]) -> None:
    for recorded in batch:
        if isinstance(recorded.event, UndecodableEvent):
            raise CannotApply(recorded.event.reason)
