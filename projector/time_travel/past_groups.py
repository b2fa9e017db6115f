"""`Groups` as of a cut."""

from collections.abc import Iterator
from typing import Final

import msgspec

from projector.event_store import EventReader
from projector.read_model.groups import RosterPage
from projector.read_model.pages import Page, take_page
from projector.read_model.shapes import Group, UserGroup, encoded
from projector.read_model.stored_states import StoredStates
from projector.time_travel.cut import Cut
from projector.time_travel.past_group import Membership, PastGroup, membership_size

_BATCH_SIZE: Final = 100


class PastGroups:
    """All groups as of a cut. All methods raise StoreUnavailable and ReadModelUnavailable."""

    def __init__(self, events: EventReader, stored_states: StoredStates, cut: Cut) -> None:
        self._reader = events
        self._stored_states = stored_states
        self._cut = cut
        self._loaded: dict[str, PastGroup] = {}

    def group(self, group_id: str) -> Group | None:
        return self._past_group(group_id).state()

    def roster(self, group_id: str, after: str, limit: int) -> RosterPage | None:
        group = self._past_group(group_id)
        if not group.profile.position:
            return None
        page = group.members(after, limit)
        members = Page(
            (encoded(member.shown()) for member in page),
            is_last=page.is_last,
            examined=None if page.is_last else page[-1].user_id,
        )
        return RosterPage(group.member_count(), group.lives.roster_complete, members)

    def member(self, group_id: str, user_id: str) -> msgspec.Raw | None:
        member = self._past_group(group_id).member(user_id)
        return member and msgspec.Raw(encoded(member.shown()).encode())

    def knows_user(self, user_id: str) -> bool:
        return any(group.names(user_id) for group in self._groups_of(user_id, ""))

    def groups_of(self, user_id: str, after: str, limit: int) -> Page[UserGroup]:
        memberships = (group.member(user_id) for group in self._groups_of(user_id, after))
        page = take_page((member for member in memberships if member is not None), limit, membership_size)
        return Page(map(_user_group, page), is_last=page.is_last)

    def _groups_of(self, user_id: str, after: str) -> Iterator[PastGroup]:
        """Yield, by id, the groups in which the user was mentioned at any time."""
        while group_ids := self._stored_states.groups_ever_of(user_id, after, _BATCH_SIZE):
            yield from map(self._past_group, group_ids)
            after = group_ids[-1]

    def _past_group(self, group_id: str) -> PastGroup:
        if group_id not in self._loaded:
            self._loaded[group_id] = PastGroup(self._reader, self._stored_states, group_id, self._cut)
        return self._loaded[group_id]


def _user_group(member: Membership) -> UserGroup:
    shown = member.shown()
    return UserGroup(member.group_id, shown.role, shown.joined_at)
