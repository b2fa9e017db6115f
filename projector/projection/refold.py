"""Refolding: replacing the rows of one group by those that all its events give."""

from collections.abc import Iterable, Sequence

import structlog

from projector.clock import now_ms as current_ms
from projector.domain.events import Recorded
from projector.event_store import EventStore
from projector.event_store.reading import stream
from projector.event_store.renamed_events import RenamedEvents
from projector.projection import Batch, Projection, apply_or_set_aside, of_same_version
from projector.read_model import ReadModel
from projector.read_model.unit_of_work import UnitOfWork

log = structlog.get_logger(__name__)


def refold(
    work: UnitOfWork, projection: Projection, group_id: str, batches: Iterable[Sequence[Recorded]], *, now_ms: int
) -> None:
    """Replace a group's rows of one projection; events that cannot be applied are set aside.

    `batches` are all events of the group up to the checkpoint, which stays where it is.

    Raises ReadModelUnavailable.
    """
    set_aside = {event.position for event in work.set_aside_events() if event.projection == projection.name}
    work.delete_group(projection.name, group_id)
    for events in batches:
        for recorded in events:
            if recorded.position in set_aside:
                work.resolve(projection.name, recorded.position)
        apply_or_set_aside(work, projection, Batch(events), now_ms=now_ms)


def refold_group(
    store: EventStore,
    read_model: ReadModel,
    projections: Sequence[Projection],
    group_id: str,
    through: int | None = None,
) -> None:
    """Replace a group's rows, in one transaction, from its events up to position `through` or else each checkpoint.

    Projections whose rows another version has written are skipped.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    with read_model.transaction() as work:
        checkpoints = work.checkpoints()
        events = RenamedEvents(store, work.forgotten_through)
        for projection in of_same_version(projections, checkpoints):
            end = checkpoints[projection.name].position if through is None else through
            refold(work, projection, group_id, stream(events, group_id, end), now_ms=current_ms())


def retry_set_aside(store: EventStore, read_model: ReadModel, projections: Sequence[Projection]) -> int:
    """Refold the groups of events that were set aside, which this version may be able to apply.

    Return how many events are still set aside. Raises StoreUnavailable and ReadModelUnavailable.
    """
    before = _set_aside(read_model)
    for group_id, names in _groups(store, before).items():
        refold_group(
            store, read_model, [projection for projection in projections if projection.name in names], group_id
        )
    after = _set_aside(read_model)
    for projection_name, position in sorted(before - after):
        log.info("applied an event that was set aside", projection=projection_name, position=position)
    return len(after)


def _set_aside(read_model: ReadModel) -> set[tuple[str, int]]:
    """Return the projection and the position of every event that is set aside."""
    with read_model.read_transaction() as now:
        return {(event.projection, event.position) for event in now.set_aside_events()}


def _groups(store: EventStore, set_aside: Iterable[tuple[str, int]]) -> dict[str, set[str]]:
    """Return the groups of these events, with the names of the projections concerned."""
    groups: dict[str, set[str]] = {}
    for projection_name, position in set_aside:
        for recorded in store.read(position - 1, 1):
            groups.setdefault(recorded.event.group_id, set()).add(projection_name)
    return groups
