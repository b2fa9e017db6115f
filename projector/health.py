"""Health: the positions and the lag of the projections, and the reasons for a failure."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from projector.clock import now_ms
from projector.event_store import EventStore
from projector.event_store.quarantine import Quarantine
from projector.event_store.reconciliations import RunReport
from projector.projection.origin import require_built_from
from projector.read_model import NoReadModel, Queries
from projector.read_model.rows import SetAside

STALLED_AFTER_MS: Final = 10_000
"""Projections are stalled when an event has waited this long for them."""


_FAILED_RUNS: Final = 2


class Health(NamedTuple):
    """The state of the projections at one moment.

    `lag_ms` is the age of the oldest event not yet projected; `failure` is the reason why nothing is projected, if so.
    `reconciliation` is the newest run; `oldest_comparison_ms` is when the group was compared that waits longest.
    """

    head: int
    positions: dict[str, int]
    lag_ms: int
    set_aside: list[SetAside]
    quarantined: int
    unfinished_forgettings: int
    failure: str | None
    reconciliation: RunReport | None = None
    oldest_comparison_ms: int | None = None

    def set_aside_by(self, projection: str) -> list[SetAside]:
        """Return the events that a projection has set aside, by position."""
        return [event for event in self.set_aside if event.projection == projection]

    def complaints(self) -> list[str]:
        """Return the reasons why the read model is not correct and current, a sentence each."""
        complaints = [f"projections are halted: {self.failure}"] if self.failure else []
        if self.lag_ms > STALLED_AFTER_MS:
            late = [f"{name} at {position}" for name, position in self.positions.items() if position < self.head]
            complaints.append(
                f"projections are stalled: {', '.join(late)} of {self.head}, {self.lag_ms / 1000:.0f} s behind"
            )
        run = self.reconciliation
        if run and run.failures >= _FAILED_RUNS:
            complaints.append(f"reconciling with the REST API failed {run.failures} times: {run.reason}")
        return complaints + [
            f"projection {projection} has set aside {len(events)} event{'s' * (len(events) != 1)},"
            f" the first at position {events[0].position}: {events[0].reason}"
            for projection in self.positions
            if (events := self.set_aside_by(projection))
        ]


def check_health(
    store: EventStore,
    quarantine: Quarantine,
    queries: Queries,
    projections: Iterable[str],
    *,
    failure: str | None = None,
) -> Health:
    """Return the health of these projections, in this process or another.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    positions, set_aside = dict.fromkeys(projections, 0), list[SetAside]()
    try:
        with queries.session() as session:
            require_built_from(store, session.mark())
            positions, set_aside = positions | session.positions(), session.set_aside_events()
    except NoReadModel as error:
        failure = str(error)
    head = store.head()
    position = min(positions.values(), default=0)
    now = now_ms()
    oldest = store.read(position, 1) if position < head else []
    received_at = oldest[0].event.recorded_at if oldest else now
    lag_ms = max(0, now - received_at) if received_at else 0
    return Health(
        head,
        positions,
        lag_ms,
        set_aside,
        quarantine.count(),
        store.forgotten.unfinished_count(),
        failure,
        store.reconciliations.newest(),
        store.reconciliations.oldest_comparison(),
    )
