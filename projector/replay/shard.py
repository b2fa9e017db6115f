"""A shard: the part of a read model that one process builds, a range of groups."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from projector.event_store import ALL_GROUPS, EventStore, GroupRange
from projector.event_store.renamed_events import RenamedEvents
from projector.projection import Projection, mark_of
from projector.projection.bulk_load import load
from projector.read_model import DraftReadModel
from projector.read_model.generations import Generation


class Shard(NamedTuple):
    """The generation to build into, and the groups whose events up to position `through` are folded.

    Accounts of forgettings up to `forgotten_through` are named by their pseudonyms.
    """

    generation: Generation
    projections: Sequence[Projection]
    through: int
    forgotten_through: int
    groups: GroupRange = ALL_GROUPS

    def load(self, store: EventStore, draft: DraftReadModel, *, on_progress: Callable[[int], None]) -> set[str]:
        """Fold all streams into the draft of the generation; return the groups with an event that cannot be applied.

        `on_progress` is called with the number of events of each batch. Raises StoreUnavailable and
        ReadModelUnavailable.
        """
        with draft.transaction() as work:
            events = RenamedEvents(store, lambda: self.forgotten_through)
            streams = events.read_streams(self.through, self.groups)
            failed = load(work, self.projections, streams, through=self.through, on_progress=on_progress)
            for newest in events.read(self.through - 1, 1) if self.through else []:
                work.save_mark(mark_of(newest))
        return failed
