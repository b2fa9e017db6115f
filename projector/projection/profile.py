"""The profile projection: one row per group that was ever heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain import profile
from projector.domain.events import speaks_of_group
from projector.read_model import State
from projector.read_model.blocks import ends_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.domain.profile import Profile
    from projector.read_model import Tables

_UNHEARD_OF = profile.Profile()


class ProfileProjection:
    """See `projector.domain.profile` for the rules."""

    name = "profile"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        """Fold the batch into `profiles` and `profile_states`."""
        profiles = tables.profiles(dict.fromkeys(recorded.event.group_id for recorded in batch))
        states: list[State[Profile]] = []
        for recorded in batch:
            group_id = recorded.event.group_id
            if speaks_of_group(recorded.event):
                profiles[group_id] = profile.evolve(profiles.get(group_id, _UNHEARD_OF), recorded)
            if ends_block(recorded.version) and group_id in profiles:
                states.append(State(group_id, recorded.version, profiles[group_id]))
        tables.save_profiles(profiles)
        tables.save_profile_states(states)
