"""The fullness projection: one row per group that was ever reported full, left, created or dismissed."""

from collections.abc import Sequence
from typing import Final

from projector.domain import fullness
from projector.domain.fullness import Fullness
from projector.projection.slices import StreamSlice
from projector.read_model import Tables
from projector.read_model.rows import StreamSnapshot

_NEW: Final = fullness.Fullness()


class FullnessProjection:
    """Fills `fullness` and `fullness_states`."""

    name = "fullness"
    version = 1

    def apply(self, tables: Tables, slices: Sequence[StreamSlice]) -> None:
        evidence = [
            [recorded for recorded in piece.evidence if fullness.concerns_fullness(recorded.event)] for piece in slices
        ]
        concerned = [pair for pair in zip(slices, evidence, strict=True) if pair[1] or pair[0].ends_block]
        known = tables.fullness(dict.fromkeys(piece.group_id for piece, _ in concerned))
        changed: dict[str, Fullness] = {}
        snapshots: list[StreamSnapshot[Fullness]] = []
        for piece, events in concerned:
            group_id = piece.group_id
            for recorded in events:
                known[group_id] = fullness.evolve(known.get(group_id, _NEW), recorded)
            if events:
                changed[group_id] = known[group_id]
            if piece.ends_block and group_id in known:
                snapshots.append(StreamSnapshot(group_id, piece.events[-1].version, known[group_id]))
        tables.save_fullness(changed)
        tables.save_fullness_snapshots(snapshots)
