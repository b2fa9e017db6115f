"""Provenance: whether a read model is made of these events, by these versions of the projections."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from projector.read_model import Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.projection import Projection
    from projector.read_model import Committed


def mark_of(recorded: Recorded) -> Mark:
    """Return what tells this event from another that might come to stand at its position."""
    event = recorded.event
    told = (event.group_id, recorded.version, event.recorded_at, event.callback)
    return Mark(recorded.position, blake2b(repr(told).encode(), digest_size=16).digest())


def unfit(store: EventStore, read_model: Committed, projections: Sequence[Projection]) -> list[str]:
    """Return the reasons, a phrase each, for which a read model has to be built again; none is as it should be.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    found = [
        f"the rows of {one.name} are of version {known[one.name].version}, not {one.version}"
        if one.name in known
        else f"there are no rows of {one.name}"
        for known in [read_model.checkpoints()]
        for one in projections
        if one.name not in known or known[one.name].version != one.version
    ]
    if (mark := read_model.mark()) and mark not in map(mark_of, store.read(mark.position - 1, 1)):
        found.append("it is made of other events than there are: a backup was restored")
    return found
