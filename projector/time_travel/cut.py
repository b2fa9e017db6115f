"""A cut through all events: those that belong to an earlier moment, and those that do not."""

from typing import NamedTuple

from projector.domain.events import Recorded
from projector.read_model.blocks import Block


class Cut(NamedTuple):
    """The events up to a position and, unless `at` is None, up to an effective time in ms."""

    position: int
    at: int | None = None

    def includes(self, recorded: Recorded) -> bool:
        return recorded.position <= self.position and (self.at is None or recorded.event.occurred_at <= self.at)

    def includes_all(self, block: Block) -> bool:
        """Tell whether every event of a block is included."""
        return block.last_position <= self.position and (self.at is None or block.latest_at <= self.at)

    def may_include(self, block: Block) -> bool:
        """Tell whether any event of a block can be included, as far as times show."""
        return self.at is None or block.earliest_at <= self.at
