"""Groups and their members at one moment: now, or an earlier one."""

from typing import NamedTuple, Protocol

import msgspec

from projector.read_model.pages import Page
from projector.read_model.shapes import Group, UserGroup


class RosterPage(NamedTuple):
    """A page of a group's members, by user id, as JSON texts; and the whole roster's size."""

    member_count: int
    roster_complete: bool
    members: Page[str]


class Groups(Protocol):
    """Groups and members at one moment. Pages begin after an id and are ordered by id, compared by code point.

    They end at `limit`, or earlier if what they hold is large, or if much had to be read to find it.
    """

    def group(self, group_id: str) -> Group | None:
        """Return a group, None if it has no events."""

    def roster(self, group_id: str, after: str, limit: int) -> RosterPage | None:
        """Return a page of a group's members, None if the group has no events."""

    def member(self, group_id: str, user_id: str) -> msgspec.Raw | None:
        """Return a member as JSON, None if the user is not one."""

    def knows_user(self, user_id: str) -> bool:
        """Return whether any group has events about the user."""

    def groups_of(self, user_id: str, after: str, limit: int) -> Page[UserGroup]:
        """Return a page of a user's groups."""
