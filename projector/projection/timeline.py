"""The timeline projection: which times each block of a stream spans, and when groups were dismissed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain.events import GroupDismissed, speaks_of_group
from projector.read_model.blocks import Block, block_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.read_model import Tables


class TimelineProjection:
    """By this, time travel knows which events of a stream to look at."""

    name = "timeline"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        """Fold the batch into `blocks` and `dismissals`."""
        keys = dict.fromkeys((recorded.event.group_id, block_number(recorded.version)) for recorded in batch)
        blocks = tables.blocks(keys)
        for recorded in batch:
            key = (recorded.event.group_id, block_number(recorded.version))
            blocks[key] = _extended(blocks.get(key), *key, recorded)
        tables.save_blocks(blocks.values())
        tables.save_dismissals(
            (recorded.event.group_id, recorded.event.occurred_at, recorded.position)
            for recorded in batch
            if isinstance(recorded.event, GroupDismissed) and speaks_of_group(recorded.event)
        )


def _extended(block: Block | None, group_id: str, number: int, recorded: Recorded) -> Block:
    at = recorded.event.occurred_at
    earliest, latest = (at, at) if block is None else (min(block.earliest_at, at), max(block.latest_at, at))
    return Block(group_id, number, earliest, latest, recorded.version, recorded.position)
