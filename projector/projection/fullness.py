"""The fullness projection: one row per group that was ever filled, left, created or dismissed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain import fullness
from projector.read_model.rows import StreamSnapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.fullness import Fullness
    from projector.projection.slices import StreamSlice
    from projector.read_model import Tables

_NOTHING = fullness.Fullness()


class FullnessProjection:
    """See `projector.domain.fullness` for the rules."""

    name = "fullness"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[StreamSlice]) -> None:
        """Fold the batch into `fullness` and `fullness_snapshots`."""
        spoken = [[one for one in stretch.evidence if fullness.concerns_fullness(one.event)] for stretch in batch]
        concerned = [pair for pair in zip(batch, spoken, strict=True) if pair[1] or pair[0].ends_block]
        known = tables.fullness(dict.fromkeys(stretch.group_id for stretch, _ in concerned))
        states: list[StreamSnapshot[Fullness]] = []
        changed: dict[str, Fullness] = {}
        for stretch, events in concerned:
            for recorded in events:
                known[stretch.group_id] = fullness.evolve(known.get(stretch.group_id, _NOTHING), recorded)
            if events:
                changed[stretch.group_id] = known[stretch.group_id]
            if stretch.ends_block and stretch.group_id in known:
                states.append(StreamSnapshot(stretch.group_id, stretch.events[-1].version, known[stretch.group_id]))
        tables.save_fullness(changed)
        tables.save_fullness_snapshots(states)
