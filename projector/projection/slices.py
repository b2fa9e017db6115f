"""Stretches: what a batch has of one block of one group's stream. Projections fold stretch by stretch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain.events import concerns_group
from projector.read_model import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projector.domain.events import Recorded


class StreamSlice:
    """Events of one group, in order, none of them in another block than the others.

    `events` are all; `evidence` are those that speak of the group and not of a topic inside it.
    """

    __slots__ = ("_last", "block", "events", "evidence", "group_id")

    def __init__(self, group_id: str, block: int) -> None:
        self.group_id = group_id
        self.block = block
        self.events: list[Recorded] = []
        self.evidence: list[Recorded] = []
        self._last = blocks.last_version(block)

    @property
    def ends_block(self) -> bool:
        """Whether its last event is the last of its block."""
        return self.events[-1].version == self._last

    def has_room_for(self, recorded: Recorded) -> bool:
        """Tell whether the next event of the group is in the same block."""
        return recorded.version <= self._last


def slice_streams(batch: Iterable[Recorded]) -> list[StreamSlice]:
    """Return a batch as stretches; those of one group are in order."""
    found: list[StreamSlice] = []
    newest: dict[str, StreamSlice] = {}
    for recorded in batch:
        event = recorded.event
        stretch = newest.get(event.group_id)
        if stretch is None or not stretch.has_room_for(recorded):
            stretch = newest[event.group_id] = StreamSlice(event.group_id, blocks.block_number(recorded.version))
            found.append(stretch)
        stretch.events.append(recorded)
        if concerns_group(event):
            stretch.evidence.append(recorded)
    return found
