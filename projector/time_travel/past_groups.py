"""`Groups` as of a cut."""

from collections.abc import Iterator
from typing import Final

from projector.event_store import EventReader
from projector.read_model.groups import GroupState, Membership
from projector.read_model.pages import Page, take_page
from projector.read_model.stored_states import StoredStates
from projector.time_travel.cut import Cut
from projector.time_travel.past_group import PastGroup, membership_size

_BATCH_SIZE: Final = 100


class PastGroups:
    """All groups as of a cut. All methods raise StoreUnavailable and ReadModelUnavailable."""

    def __init__(self, events: EventReader, stored_states: StoredStates, cut: Cut) -> None:
        self._reader = events
        self._stored_states = stored_states
        self._cut = cut
        self._loaded: dict[str, PastGroup] = {}

    def group(self, group_id: str) -> GroupState | None:
        return self._past_group(group_id).state()

    def members(self, group_id: str, after: str, limit: int) -> Page[Membership]:
        return self._past_group(group_id).members(after, limit)

    def member(self, group_id: str, user_id: str) -> Membership | None:
        return self._past_group(group_id).member(user_id)

    def knows_user(self, user_id: str) -> bool:
        return any(group.names(user_id) for group in self._groups_of(user_id, ""))

    def groups_of(self, user_id: str, after: str, limit: int) -> Page[Membership]:
        memberships = (group.member(user_id) for group in self._groups_of(user_id, after))
        return take_page((member for member in memberships if member is not None), limit, membership_size)

    def _groups_of(self, user_id: str, after: str) -> Iterator[PastGroup]:
        """Yield, by id, the groups in which the user was mentioned at any time."""
        while group_ids := self._stored_states.groups_ever_of(user_id, after, _BATCH_SIZE):
            yield from map(self._past_group, group_ids)
            after = group_ids[-1]

    def _past_group(self, group_id: str) -> PastGroup:
        if group_id not in self._loaded:
            self._loaded[group_id] = PastGroup(self._reader, self._stored_states, group_id, self._cut)
        return self._loaded[group_id]
