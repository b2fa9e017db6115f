"""The timeline projection: the times that each block of a stream spans, and the dismissals of groups."""

from collections.abc import Sequence

from projector.domain.events import GroupDismissed
from projector.domain.lives import moment_of
from projector.projection.slices import StreamSlice
from projector.read_model import Tables
from projector.read_model.blocks import Block


class TimelineProjection:
    """Fills `blocks`, from which time travel knows which events of a stream to read, and `dismissals`."""

    name = "timeline"
    version = 1

    def apply(self, tables: Tables, slices: Sequence[StreamSlice]) -> None:
        known = tables.blocks((piece.group_id, piece.block) for piece in slices)
        tables.save_blocks([_extended(known.get((piece.group_id, piece.block)), piece) for piece in slices])
        tables.save_dismissals(
            (piece.group_id, *moment_of(recorded))
            for piece in slices
            for recorded in piece.evidence
            if isinstance(recorded.event, GroupDismissed)
        )


def _extended(block: Block | None, piece: StreamSlice) -> Block:
    times = [recorded.event.occurred_at for recorded in piece.events]
    if block is not None:
        times += (block.earliest_at, block.latest_at)
    newest = piece.events[-1]
    return Block(piece.group_id, piece.block, min(times), max(times), newest.version, newest.position)
