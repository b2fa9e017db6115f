"""Groups and their members at one moment: now, or an earlier one."""

from typing import NamedTuple, Protocol

from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, UNKNOWN, Moment, Register
from projector.domain.membership import Member
from projector.domain.profile import Profile
from projector.read_model.pages import Page
from projector.read_model.rows import Roster


class GroupState(NamedTuple):
    """Everything known about one group; `owner_exited` is the newest exit of the user in its owner register."""

    group_id: str
    profile: Profile
    roster: Roster = Roster()
    fullness: Fullness = Fullness()
    owner_exited: Moment = NEVER


class Membership(NamedTuple):
    """One member of one group, with the group's owner register, which decides the role."""

    group_id: str
    user_id: str
    member: Member
    owner: Register = UNKNOWN


class Groups(Protocol):
    """Groups and members at one moment. Pages begin after an id and are ordered by id, compared by code point.

    They end at `limit`, or earlier if what they hold is large.
    """

    def group(self, group_id: str) -> GroupState | None:
        """Return a group, None if it has no events."""

    def members(self, group_id: str, after: str, limit: int) -> Page[Membership]:
        """Return a page of a group's members."""

    def member(self, group_id: str, user_id: str) -> Membership | None:
        """Return a member, None if the user is not one."""

    def knows_user(self, user_id: str) -> bool:
        """Return whether any group has events about the user."""

    def groups_of(self, user_id: str, after: str, limit: int) -> Page[Membership]:
        """Return a page of a user's memberships."""
