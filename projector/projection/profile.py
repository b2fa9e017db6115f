"""The profile projection: one row per known group."""

from collections.abc import Sequence
from typing import Final

from projector.domain import profile
from projector.domain.profile import Profile
from projector.projection.slices import StreamSlice
from projector.read_model import Tables
from projector.read_model.rows import StreamSnapshot

_NEW: Final = profile.Profile()


class ProfileProjection:
    """Fills `profiles` and `profile_states`."""

    name = "profile"
    version = 2

    def apply(self, tables: Tables, slices: Sequence[StreamSlice]) -> None:
        profiles = tables.profiles(dict.fromkeys(piece.group_id for piece in slices))
        snapshots: list[StreamSnapshot[Profile]] = []
        for piece in slices:
            known = profiles.get(piece.group_id, _NEW)
            for recorded in piece.evidence:
                known = profile.evolve(known, recorded)
            if known is _NEW:
                continue
            profiles[piece.group_id] = known
            if piece.ends_block:
                snapshots.append(StreamSnapshot(piece.group_id, piece.events[-1].version, known))
        tables.save_profiles(profiles)
        tables.save_profile_snapshots(snapshots)
