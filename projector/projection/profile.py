"""The profile projection: one row per group that was ever heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain import profile
from projector.domain.events import speaks_of_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.read_model import Tables


class ProfileProjection:
    """See `projector.domain.profile` for the rules."""

    name = "profile"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        """Fold the batch into `profiles`."""
        events = [recorded for recorded in batch if speaks_of_group(recorded.event)]
        profiles = tables.profiles(dict.fromkeys(recorded.event.group_id for recorded in events))
        for recorded in events:
            group_id = recorded.event.group_id
            profiles[group_id] = profile.evolve(profiles.get(group_id, profile.Profile()), recorded)
        tables.save_profiles(profiles)
