"""Health: how far the projections are behind the store, and what keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from projector.clock import now_ms
from projector.read_model import NoReadModel
from projector.read_model.rows import SetAside

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projector.event_store import EventStore
    from projector.event_store.quarantine import Quarantine
    from projector.read_model import Queries

STALLED_AFTER_MS: Final = 10_000
"""Projections are stalled when an event has waited this long for them."""


class Health(NamedTuple):
    """What was seen at one moment; `lag_ms` is how long the oldest event not yet projected has waited."""

    head: int
    positions: dict[str, int]
    lag_ms: int
    notes: list[SetAside]
    quarantined: int
    failure: str | None

    @property
    def position(self) -> int:
        """The position that every projection has reached."""
        return min(self.positions.values(), default=0)

    def complaints(self) -> list[str]:
        """Return, a sentence each, what keeps the projections from being right and recent."""
        found = [f"projections are halted: {self.failure}"] if self.failure else []
        if self.lag_ms > STALLED_AFTER_MS:
            behind = [f"{name} at {position}" for name, position in self.positions.items() if position < self.head]
            found.append(
                f"projections are stalled: {', '.join(behind)} of {self.head}, {self.lag_ms / 1000:.0f} s behind"
            )
        for name in self.positions:
            if first := next((note for note in self.notes if note.projection == name), None):
                count = sum(note.projection == name for note in self.notes)
                found.append(
                    f"projection {name} has set aside {count} event(s), the first at position {first.position}:"
                    f" {first.reason}"
                )
        return found


def look(
    store: EventStore,
    quarantine: Quarantine,
    queries: Queries,
    projections: Iterable[str],
    *,
    failure: str | None = None,
) -> Health:
    """Return the health of these projections, wherever they run. Raises StoreUnavailable and ReadModelUnavailable."""
    positions, notes = dict.fromkeys(projections, 0), list[SetAside]()
    try:
        with queries.session() as session:
            positions, notes = positions | session.positions(), session.set_aside_events()
    except NoReadModel as error:
        failure = str(error)
    head = store.head()
    position = min(positions.values(), default=0)
    waiting = store.read(position, 1) if position < head else []
    now = now_ms()
    received_at = waiting[0].event.recorded_at if waiting else now
    lag_ms = max(0, now - received_at) if received_at else 0
    return Health(head, positions, lag_ms, notes, quarantine.count(), failure)
