"""Provenance: whether a read model is made of these events, by these versions of the projections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.projection import mark_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.event_store import EventStore
    from projector.projection import Projection
    from projector.read_model.unit_of_work import ReadTransaction


def reasons_to_rebuild(store: EventStore, read_model: ReadTransaction, projections: Sequence[Projection]) -> list[str]:
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
