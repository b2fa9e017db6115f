"""The fullness projection: one row per group that was ever filled, left, created or dismissed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain import fullness
from projector.domain.events import GroupCreated, GroupDismissed, GroupFilled, MembersLeft, speaks_of_group
from projector.read_model import State
from projector.read_model.blocks import ends_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.domain.fullness import Fullness
    from projector.read_model import Tables

_EVIDENCE = (GroupCreated, GroupDismissed, GroupFilled, MembersLeft)
_NOTHING = fullness.Fullness()


class FullnessProjection:
    """See `projector.domain.fullness` for the rules."""

    name = "fullness"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        """Fold the batch into `fullness` and `fullness_states`."""
        events = [one for one in batch if isinstance(one.event, _EVIDENCE) or ends_block(one.version)]
        known = tables.fullness(dict.fromkeys(recorded.event.group_id for recorded in events))
        states: list[State[Fullness]] = []
        changed: dict[str, Fullness] = {}
        for recorded in events:
            group_id = recorded.event.group_id
            if isinstance(recorded.event, _EVIDENCE) and speaks_of_group(recorded.event):
                changed[group_id] = known[group_id] = fullness.evolve(known.get(group_id, _NOTHING), recorded)
            if ends_block(recorded.version) and group_id in known:
                states.append(State(group_id, recorded.version, known[group_id]))
        tables.save_fullness(changed)
        tables.save_fullness_states(states)
