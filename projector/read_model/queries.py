"""The read model as the questions see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, UNKNOWN, Moment, Register
from projector.read_model import Roster

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from contextlib import AbstractContextManager

    from projector.domain.membership import Member
    from projector.domain.profile import Profile
    from projector.read_model import MemberEvent, RosterSnapshot, RosterUsers, SetAside
    from projector.read_model.blocks import Block


class GroupState(NamedTuple):
    """All that is known of one group; `owner_exited` is the newest exit of whoever its owner register names."""

    group_id: str
    profile: Profile
    roster: Roster = Roster()
    fullness: Fullness = Fullness()
    owner_exited: Moment = NEVER


class Membership(NamedTuple):
    """One member of one group, with the group's owner register, from which the role follows."""

    group_id: str
    user_id: str
    member: Member
    owner: Register = UNKNOWN


class GroupFilter(NamedTuple):
    """Which groups to list; None is no condition. `prefix` is of the name or of the group id, to the letter."""

    type: str | None = None
    status: str | None = None
    is_full: bool | None = None
    prefix: str | None = None


class Counts(NamedTuple):
    """How much there is."""

    groups: int
    active_groups: int
    full_groups: int
    members: int


class Past(Protocol):
    """What is stored of earlier moments; `projector.time_travel` makes answers of it."""

    def blocks(self, group_id: str) -> list[Block]:
        """Return the blocks of a group's stream, in order."""

    def roster_snapshot(self, group_id: str, version: int) -> RosterSnapshot | None:
        """Return the newest state of a roster at or before a version."""

    def roster_users(self, group_id: str, version: int) -> RosterUsers:
        """Return the newest stored users at or before a version; nobody, at version 0, if there are none."""

    def profile_snapshot(self, group_id: str, version: int) -> Profile | None:
        """Return the profile stored at this version."""

    def fullness_snapshot(self, group_id: str, version: int) -> Fullness | None:
        """Return the fullness stored at this version, if there was any."""

    def members_until(self, group_id: str, user_ids: Sequence[str], position: int) -> dict[str, Member]:
        """Return the evidence there is about users after the event at a position."""

    def groups_ever_of(self, user_id: str, after: str, limit: int) -> list[str]:
        """Return groups behind an id in which the user was ever heard of, by id."""

    def changes(
        self, group_id: str, user_id: str, before: Moment | None, limit: int
    ) -> list[tuple[Moment, MemberEvent]]:
        """Return the joins and exits of a user, and the dismissals of the group, before a moment, newest first."""

    def knows_member(self, group_id: str, user_id: str) -> bool:
        """Tell whether the user was ever heard of in the group."""


class Groups(Protocol):
    """What is known of groups and their members at one moment: now, or an earlier one."""

    def group(self, group_id: str) -> GroupState | None:
        """Return a group, None if it was never heard of."""

    def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        """Return members behind a user id, by user id."""

    def member(self, group_id: str, user_id: str) -> Membership | None:
        """Return a member, None if the user is not one."""

    def knows_user(self, user_id: str) -> bool:
        """Tell whether the user was ever heard of in any group."""

    def groups_of(self, user_id: str, after: str, limit: int) -> list[Membership]:
        """Return a user's memberships behind a group id, by group id."""


class QuerySession(Groups, Protocol):
    """Questions answered at one moment: all projections as they were after the same commit."""

    @property
    def past(self) -> Past:
        """What is stored of earlier moments."""

    def positions(self) -> dict[str, int]:
        """Return the position each projection reached."""

    def groups(self, condition: GroupFilter, after: str, limit: int) -> list[GroupState]:
        """Return groups behind an id, by id."""

    def set_aside_events(self) -> list[SetAside]:
        """Return what is set aside, oldest first."""

    def counts(self) -> Counts:
        """Count everything; this looks at every group."""


class Queries(Protocol):
    """The read model as the questions see it."""

    def session(self) -> AbstractContextManager[QuerySession]:
        """Open one moment for reading. Raises ReadModelUnavailable."""

    def version(self) -> Hashable | None:
        """Return what tells the state of the moment from every other; None if that cannot be told at once."""

    def close(self) -> None:
        """Let go of every connection."""
