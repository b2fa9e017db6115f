"""The fullness projection: one row per group that was ever filled, left, created or dismissed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain import fullness
from projector.domain.events import GroupCreated, GroupDismissed, GroupFilled, MembersLeft, speaks_of_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.read_model import Tables

_EVIDENCE = (GroupCreated, GroupDismissed, GroupFilled, MembersLeft)


class FullnessProjection:
    """See `projector.domain.fullness` for the rules."""

    name = "fullness"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        """Fold the batch into `fullness`."""
        events = [
            recorded for recorded in batch if isinstance(recorded.event, _EVIDENCE) and speaks_of_group(recorded.event)
        ]
        known = tables.fullness(dict.fromkeys(recorded.event.group_id for recorded in events))
        for recorded in events:
            group_id = recorded.event.group_id
            known[group_id] = fullness.evolve(known.get(group_id, fullness.Fullness()), recorded)
        tables.save_fullness(known)
