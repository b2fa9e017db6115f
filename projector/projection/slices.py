"""Stream slices: the events of a batch by stream and block. Projections fold slice by slice."""

from collections.abc import Iterable

from projector.domain.events import Recorded, concerns_group
from projector.read_model import blocks


class StreamSlice:
    """Events of one block of one group's stream, in order; `evidence` is those that concern the group itself."""

    __slots__ = ("_last_version", "block", "events", "evidence", "group_id")

    def __init__(self, group_id: str, block: int) -> None:
        self.group_id = group_id
        self.block = block
        self.events: list[Recorded] = []
        self.evidence: list[Recorded] = []
        self._last_version = blocks.last_version(block)

    @property
    def begins_block(self) -> bool:
        """Whether the oldest event is the first of the block."""
        return self.events[0].version == self._last_version - blocks.SIZE + 1

    @property
    def ends_block(self) -> bool:
        """Whether the newest event is the last of the block."""
        return self.events[-1].version == self._last_version

    def has_room_for(self, recorded: Recorded) -> bool:
        """Tell whether the group's next event belongs to the same block."""
        return recorded.version <= self._last_version


def slice_streams(events: Iterable[Recorded]) -> list[StreamSlice]:
    """Return the events as slices; those of one group are in order."""
    slices: list[StreamSlice] = []
    newest: dict[str, StreamSlice] = {}
    for recorded in events:
        event = recorded.event
        piece = newest.get(event.group_id)
        if piece is None or not piece.has_room_for(recorded):
            piece = newest[event.group_id] = StreamSlice(event.group_id, blocks.block_number(recorded.version))
            slices.append(piece)
        piece.events.append(recorded)
        if concerns_group(event):
            piece.evidence.append(recorded)
    return slices
