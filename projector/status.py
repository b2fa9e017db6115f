"""The status of an installation, as `projector status` shows it."""

from typing import Any

import msgspec

from projector.event_store.spool import SpoolStatus
from projector.health import Health
from projector.read_model.generations import RebuildProgress
from projector.read_model.query_session import Counts


class ProjectionStatus(msgspec.Struct):
    """A projection's position, how many events it lags behind the head, and how many it has set aside."""

    position: int
    lag_events: int
    set_aside: int


class Waiting(msgspec.Struct):
    """How many events wait in the spool, and the age of the oldest in seconds."""

    events: int
    seconds: float


class Status(msgspec.Struct):
    """Positions, lag, totals and complaints. `replay` is null unless one is under way."""

    head: int
    projections: dict[str, ProjectionStatus]
    lag_seconds: float
    counts: dict[str, int]
    quarantine: int
    spool: Waiting
    set_aside: list[dict[str, Any]]
    replay: dict[str, Any] | None
    complaints: list[str]


def waiting(spool: SpoolStatus) -> Waiting:
    return Waiting(spool.depth, spool.age_s())


def status_of(health: Health, counts: Counts, spool: SpoolStatus, replay: RebuildProgress | None) -> Status:
    return Status(
        head=health.head,
        projections={
            name: ProjectionStatus(position, health.head - position, len(health.set_aside_by(name)))
            for name, position in sorted(health.positions.items())
        },
        lag_seconds=health.lag_ms / 1000,
        counts=counts._asdict(),
        quarantine=health.quarantined,
        spool=waiting(spool),
        set_aside=[event._asdict() for event in health.set_aside],
        replay=replay._asdict() if replay else None,
        complaints=health.complaints(),
    )
