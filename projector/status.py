"""The status of an installation, as `projector status` shows it, and its part for `/readyz`."""

import msgspec
import msgspec.structs

from projector.clock import to_rfc3339
from projector.event_store.reconciliations import RunReport
from projector.event_store.spool import SpoolStatus
from projector.health import Health
from projector.processes.board import Board, ProcessState
from projector.read_model.generations import RebuildProgress
from projector.read_model.query_session import Counts


class ProjectionStatus(msgspec.Struct):
    """A projection's position, how many events it lags behind the head, and how many it has set aside."""

    position: int
    lag_events: int
    set_aside: int


class SetAsideEvent(msgspec.Struct):
    """An event that a projection could not apply, and when it tried (ms since 1970 UTC)."""

    projection: str
    position: int
    reason: str
    at: int


class Spooled(msgspec.Struct, omit_defaults=True):
    """The number of events in the spool, the age of the oldest in seconds, and how many cannot be decoded, if any."""

    events: int
    seconds: float
    set_aside: int = 0


class ReplayProgress(msgspec.Struct):
    """The progress of a replay: `done` of `total` events in this phase; a `total` of 0 is unknown."""

    phase: str
    done: int
    total: int


class KindStatus(msgspec.Struct):
    """How many differences of a kind were found, and what became of them."""

    found: int
    corrected: int
    in_flight: int
    settled_late: int
    unsettled: int


class ReconciliationStatus(msgspec.Struct):
    """A run that compares the groups with the vendor's REST API.

    `scope` is null if it is all groups. `reason` says why the last attempt failed, if it did. Callbacks with the
    commands `never_received` report such differences, and none was ever received.
    """

    run: int
    state: str
    reason: str | None
    check: bool
    scope: list[str] | None
    started_at: str
    finished_at: str | None
    groups: dict[str, int]
    kinds: dict[str, KindStatus]
    never_received: list[str]


class Status(msgspec.Struct):
    """Positions, lag, totals and complaints. `replay` is null unless a replay is in progress.

    `last_callback_at` is the time of receipt of the newest event, in RFC 3339, null before the first. `has_worker` says
    whether a process projects.
    """

    head: int
    last_callback_at: str | None
    has_worker: bool
    projections: dict[str, ProjectionStatus]
    lag_seconds: float
    counts: dict[str, int]
    quarantine: int
    spool: Spooled
    set_aside: list[SetAsideEvent]
    replay: ReplayProgress | None
    unfinished_forgettings: int
    complaints: list[str]
    reconciliation: ReconciliationStatus | None = None


class Readiness(msgspec.Struct, kw_only=True):
    """The part of the status that `/readyz` shows. Fields without a value are left out."""

    status: str
    spool: Spooled | msgspec.UnsetType = msgspec.UNSET
    head: int | msgspec.UnsetType = msgspec.UNSET
    positions: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    lag_seconds: float | msgspec.UnsetType = msgspec.UNSET
    unfinished_forgettings: int | msgspec.UnsetType = msgspec.UNSET
    processes: dict[str, ProcessState] | msgspec.UnsetType = msgspec.UNSET
    complaints: list[str]

    def show(self, health: Health) -> None:
        self.head, self.positions, self.lag_seconds = health.head, health.positions, health.lag_ms / 1000
        self.unfinished_forgettings = health.unfinished_forgettings or msgspec.UNSET
        self.complain(health.complaints())

    def show_processes(self, board: Board) -> None:
        self.processes = board.states() or msgspec.UNSET
        self.complain(board.complaints())

    def show_spool(self, spool: SpoolStatus) -> None:
        self.spool = spooled(spool)
        self.complain(spool.complaints())

    def complain(self, complaints: list[str]) -> None:
        self.complaints = self.complaints + complaints
        self.status = "not ready" if self.complaints else "ready"


def status_of(
    health: Health,
    counts: Counts,
    spool: SpoolStatus,
    replay: RebuildProgress | None,
    *,
    last_callback_ms: int | None,
    has_worker: bool,
) -> Status:
    return Status(
        head=health.head,
        last_callback_at=None if last_callback_ms is None else to_rfc3339(last_callback_ms),
        has_worker=has_worker,
        projections={
            name: ProjectionStatus(position, health.head - position, len(health.set_aside_by(name)))
            for name, position in sorted(health.positions.items())
        },
        lag_seconds=health.lag_ms / 1000,
        counts=counts._asdict(),
        quarantine=health.quarantined,
        spool=spooled(spool),
        set_aside=[SetAsideEvent(*event) for event in health.set_aside],
        replay=ReplayProgress(*replay) if replay else None,
        unfinished_forgettings=health.unfinished_forgettings,
        reconciliation=reconciliation_status(health.reconciliation) if health.reconciliation else None,
        complaints=health.complaints() + spool.complaints(),
    )


def reconciliation_status(report: RunReport) -> ReconciliationStatus:
    return ReconciliationStatus(
        run=report.run,
        state=report.state,
        reason=report.reason,
        check=report.check,
        scope=report.scope,
        started_at=to_rfc3339(report.started_at),
        finished_at=None if report.finished_at is None else to_rfc3339(report.finished_at),
        groups=report.groups,
        kinds={kind: KindStatus(**msgspec.structs.asdict(counts)) for kind, counts in report.kinds.items()},
        never_received=report.never_received,
    )


def spooled(spool: SpoolStatus) -> Spooled:
    return Spooled(spool.depth, spool.age_s(), spool.set_aside)
