"""The profile projection: one row per group that was ever heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain import profile
from projector.read_model.rows import StreamSnapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.profile import Profile
    from projector.projection.slices import StreamSlice
    from projector.read_model import Tables

_UNHEARD_OF = profile.Profile()


class ProfileProjection:
    """See `projector.domain.profile` for the rules."""

    name = "profile"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[StreamSlice]) -> None:
        """Fold the batch into `profiles` and `profile_snapshots`."""
        profiles = tables.profiles(dict.fromkeys(stretch.group_id for stretch in batch))
        states: list[StreamSnapshot[Profile]] = []
        for stretch in batch:
            known = profiles.get(stretch.group_id, _UNHEARD_OF)
            for recorded in stretch.evidence:
                known = profile.evolve(known, recorded)
            if known is _UNHEARD_OF:
                continue
            profiles[stretch.group_id] = known
            if stretch.ends_block:
                states.append(StreamSnapshot(stretch.group_id, stretch.events[-1].version, known))
        tables.save_profiles(profiles)
        tables.save_profile_snapshots(states)
