"""The span between two cuts, and a group's events in it."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from projector.domain.events import Recorded
from projector.event_store import EventReader
from projector.event_store.reading import group_history
from projector.read_model.blocks import Block
from projector.read_model.stored_states import StoredStates
from projector.time_travel.cut import Cut


class Span(NamedTuple):
    """The events that the later cut includes and the earlier one does not."""

    earlier: Cut
    later: Cut

    def includes(self, recorded: Recorded) -> bool:
        return self.later.includes(recorded) and not self.earlier.includes(recorded)

    def may_include(self, block: Block) -> bool:
        return self.later.may_include(block) and not self.earlier.includes_all(block)


def events_between(
    events: EventReader, stored_states: StoredStates, group_id: str, span: Span, after_version: int = 0
) -> Iterator[Recorded]:
    """Yield a group's events in the span that come after a version, in order.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    for block in stored_states.blocks(group_id):
        if block.last_version <= after_version or not span.may_include(block):
            continue
        after = max(block.before, after_version)
        count = block.last_version - after
        yield from filter(span.includes, islice(group_history(events, group_id, after, count), count))
