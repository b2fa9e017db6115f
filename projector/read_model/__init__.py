"""The read model: the tables the questions are answered from, and the position each projection reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, UNKNOWN, Lives, Moment, Register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from projector.domain.membership import Member, Standing
    from projector.domain.profile import Profile


class ReadModelUnavailable(Exception):
    """The read model did not take or give what was asked; nothing changed. The text says why."""


class Roster(NamedTuple):
    """A group as membership sees it; `member_count` is the number of its rows that stand as members."""

    lives: Lives = Lives()
    member_count: int = 0


class MemberRow(NamedTuple):
    """One user in one group: the evidence, and the standing that follows from it."""

    group_id: str
    user_id: str
    member: Member
    standing: Standing


class Row(NamedTuple):
    """A row as it is stored. `key` is the group id and what else identifies it; `values` is the whole row."""

    table: str
    key: tuple[str, ...]
    values: tuple[object, ...] | None


class Tables(Protocol):
    """What a projection reads and writes while its checkpoint moves."""

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        """Return the rosters there are among these groups."""

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        """Return the rows there are among these (group, user) pairs."""

    def present(self, group_id: str) -> Iterator[MemberRow]:
        """Return a group's rows that stand as members or await a creation."""

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        """Insert or replace rosters."""

    def save_members(self, rows: Iterable[MemberRow]) -> None:
        """Insert or replace rows."""

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        """Return the profiles there are among these groups."""

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None:
        """Insert or replace profiles."""

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        """Return the fullness there is of these groups."""

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        """Insert or replace fullness."""

    def rows(self, projection: str, group_id: str | None) -> Iterator[Row]:
        """Return all rows of a projection, or one group's, ordered by table and key."""

    def put(self, row: Row) -> None:
        """Insert or replace a row; without values, delete it."""


class Work(Protocol):
    """One transaction on the read model. The tables are reached only together with a checkpoint's move."""

    def position(self, projection: str) -> int:
        """Return the position a projection reached."""

    def version(self, projection: str) -> int:
        """Return the version of the projection whose rows these are: another process may run another one."""

    def advance(self, projection: str, *, through: int) -> AbstractContextManager[Tables]:
        """Hand out the tables and move the checkpoint, or, on any exception, leave both as before.

        `through` below the checkpoint leaves the checkpoint where it is: an event set aside is applied late.
        """

    def set_aside(self, projection: str, position: int, *, reason: str, at: int) -> None:
        """Move the checkpoint past an event that could not be applied, and note it, at a time in ms."""

    def settle(self, projection: str, position: int) -> None:
        """Strike out a note: the event was applied after all."""


class SetAside(NamedTuple):
    """An event that a projection could not apply; `at` is in ms since 1970 UTC."""

    projection: str
    position: int
    reason: str
    at: int


class ReadModel(Protocol):
    """The read model as the projections see it. One process at a time projects into it."""

    def prepare(self, versions: Mapping[str, int], head: Callable[[], int] | None = None) -> list[str]:
        """Make room for these projections; return those that had rows and now start over.

        Those are the ones whose rows are of another version or, where `head` tells the store's, ahead of the store: it
        was restored from a backup.
        """

    def transaction(self) -> AbstractContextManager[Work]:
        """Open a transaction: it commits whole or not at all. Raises ReadModelUnavailable."""

    def notes(self) -> list[SetAside]:
        """Return what is set aside, oldest first."""

    def close(self) -> None:
        """Let go of every connection."""


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


class Snapshot(Protocol):
    """Questions answered at one moment: all projections as they were after the same commit."""

    def positions(self) -> dict[str, int]:
        """Return the position each projection reached."""

    def group(self, group_id: str) -> GroupState | None:
        """Return a group, None if it was never heard of."""

    def groups(self, condition: GroupFilter, after: str, limit: int) -> list[GroupState]:
        """Return groups behind an id, by id."""

    def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        """Return members behind a user id, by user id."""

    def member(self, group_id: str, user_id: str) -> Membership | None:
        """Return a member, None if the user is not one."""

    def knows_user(self, user_id: str) -> bool:
        """Tell whether the user was ever heard of in any group."""

    def groups_of(self, user_id: str, after: str, limit: int) -> list[Membership]:
        """Return a user's memberships behind a group id, by group id."""

    def notes(self) -> list[SetAside]:
        """Return what is set aside, oldest first."""

    def counts(self) -> Counts:
        """Count everything; this looks at every group."""


class Queries(Protocol):
    """The read model as the questions see it."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open one moment for reading. Raises ReadModelUnavailable."""

    def close(self) -> None:
        """Let go of every connection."""
