"""The timeline projection: which times each block of a stream spans, and when groups were dismissed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain.events import GroupDismissed
from projector.domain.lives import moment_of
from projector.read_model.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.projection.slices import StreamSlice
    from projector.read_model import Tables


class TimelineProjection:
    """By this, time travel knows which events of a stream to look at."""

    name = "timeline"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[StreamSlice]) -> None:
        """Fold the batch into `blocks` and `dismissals`."""
        known = tables.blocks((stretch.group_id, stretch.block) for stretch in batch)
        tables.save_blocks([_extended(known.get((stretch.group_id, stretch.block)), stretch) for stretch in batch])
        tables.save_dismissals(
            (stretch.group_id, *moment_of(recorded))
            for stretch in batch
            for recorded in stretch.evidence
            if isinstance(recorded.event, GroupDismissed)
        )


def _extended(block: Block | None, stretch: StreamSlice) -> Block:
    times = [recorded.event.occurred_at for recorded in stretch.events]
    if block is not None:
        times += (block.earliest_at, block.latest_at)
    newest = stretch.events[-1]
    return Block(stretch.group_id, stretch.block, min(times), max(times), newest.version, newest.position)
