"""Staleness: whether a read model was built from these events, by these versions of the projections."""

from collections.abc import Sequence

from projector.event_store import EventStore
from projector.projection import Projection
from projector.projection.origin import OTHER_EVENTS, is_built_from
from projector.read_model.rows import Checkpoint
from projector.read_model.unit_of_work import ReadTransaction


def reasons_to_rebuild(store: EventStore, read_model: ReadTransaction, projections: Sequence[Projection]) -> list[str]:
    """Return the reasons, a phrase each, why a read model must be rebuilt; empty if it is up to date.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    checkpoints = read_model.checkpoints()
    reasons = [_reason(projection, checkpoints.get(projection.name)) for projection in projections]
    if not is_built_from(store, read_model.mark()):
        reasons.append(OTHER_EVENTS)
    if read_model.forgotten_through() < store.forgotten.newest():
        reasons.append("users were forgotten after it was built")
    return [reason for reason in reasons if reason]


def _reason(projection: Projection, checkpoint: Checkpoint | None) -> str | None:
    if checkpoint is None:
        return f"there are no rows of {projection.name}"
    if checkpoint.version != projection.version:
        return f"the rows of {projection.name} are of version {checkpoint.version}, not {projection.version}"
    return None
