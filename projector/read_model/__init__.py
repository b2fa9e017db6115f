"""The read model: the tables the questions are answered from, and the position each projection reached.

The questions' side of it is in `projector.read_model.queries`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from projector.domain.lives import Lives

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from projector.domain.fullness import Fullness
    from projector.domain.membership import Member, Standing
    from projector.domain.profile import Profile
    from projector.read_model.blocks import Block

_Evidence = TypeVar("_Evidence")


class ReadModelUnavailable(Exception):
    """The read model did not take or give what was asked; nothing changed. The text says why."""


class NoReadModel(ReadModelUnavailable):
    """There is no read model of this version yet."""


class Checkpoint(NamedTuple):
    """How far a projection has come, and the version of it that has written the rows."""

    version: int
    position: int


class Mark(NamedTuple):
    """An event the read model has seen, by which it is known whose events it is made of."""

    position: int
    fingerprint: bytes


class RebuildProgress(NamedTuple):
    """How far the building of a read model is: `done` of `total` events in this phase."""

    phase: str
    done: int
    total: int


class Roster(NamedTuple):
    """A group as membership sees it; `member_count` is the number of its rows that stand as members."""

    lives: Lives = Lives()
    member_count: int = 0


Change: TypeAlias = Literal["joined", "left"]
MemberEvent: TypeAlias = Literal["joined", "left", "dismissed"]


class MemberRow(msgspec.Struct, frozen=True, gc=False):
    """One user in one group: the evidence, and the standing that follows from it.

    `position`, `at` (ms) and `change` tell of the newest event about this user here, whether it changed anything or
    not. Each such event leaves one version of the row.
    """

    group_id: str
    user_id: str
    member: Member
    standing: Standing
    position: int
    at: int
    change: Change | None


class StreamSnapshot(NamedTuple, Generic[_Evidence]):
    """What a fold knew of a group after the event of this version."""

    group_id: str
    version: int
    evidence: _Evidence


class RosterSnapshot(NamedTuple):
    """A group as membership knew it after the event of this version and position."""

    group_id: str
    version: int
    position: int
    lives: Lives
    member_count: int


class RosterUsers(NamedTuple):
    """Those who were not out after the event of this version, in order."""

    group_id: str
    version: int
    users: Sequence[str]


class Rows(NamedTuple):
    """A table's rows, ordered by their key, which is their first `width` columns."""

    table: str
    width: int
    values: Iterator[tuple[Any, ...]]


class Tables(Protocol):
    """What a projection reads and writes while its checkpoint moves."""

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        """Return the rosters there are among these groups."""

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        """Return the rows there are among these (group, user) pairs."""

    def present(self, group_id: str) -> Iterator[MemberRow]:
        """Return a group's rows that stand as members or await a creation."""

    def present_users(self, group_id: str) -> Iterator[str]:
        """Return whose rows these are, which is far less to read."""

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        """Insert or replace rosters."""

    def save_members(self, rows: Iterable[MemberRow]) -> None:
        """Insert or replace rows."""

    def save_earlier_members(self, rows: Iterable[MemberRow]) -> None:
        """Insert versions of rows that are the newest no longer."""

    def save_roster_snapshots(self, states: Iterable[RosterSnapshot]) -> None:
        """Insert states of rosters."""

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        """Return the version at which a group's users were stored last, and how many they were."""

    def save_roster_users(self, users: RosterUsers) -> None:
        """Insert the users of a roster."""

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        """Return the profiles there are among these groups."""

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None:
        """Insert or replace profiles."""

    def save_profile_snapshots(self, states: Iterable[StreamSnapshot[Profile]]) -> None:
        """Insert states of profiles."""

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        """Return the fullness there is of these groups."""

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        """Insert or replace fullness."""

    def save_fullness_snapshots(self, states: Iterable[StreamSnapshot[Fullness]]) -> None:
        """Insert states of fullness."""

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Block]:
        """Return the blocks there are among these (group, number) pairs."""

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        """Insert or replace blocks."""

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        """Insert (group, effective time in ms, position) of dismissals."""


class ReadTransaction(Protocol):
    """The whole read model as it was after one commit."""

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Return how far each projection has come."""

    def mark(self) -> Mark | None:
        """Return the newest event seen, None before the first."""

    def set_aside_events(self) -> list[SetAside]:
        """Return what is set aside, oldest first."""

    def rows(self, projection: str, group_id: str | None = None) -> list[Rows]:
        """Return, table by table, all rows of a projection, or one group's."""


class UnitOfWork(ReadTransaction, Protocol):
    """One transaction on the read model. The tables are reached only together with a checkpoint's move."""

    def advance(self, projection: str, *, through: int) -> AbstractContextManager[Tables]:
        """Hand out the tables and move the checkpoint, or, on any exception, leave both as before.

        `through` below the checkpoint leaves the checkpoint where it is: an event set aside is applied late.
        """

    def delete_group(self, projection: str, group_id: str) -> None:
        """Delete a group's rows of a projection, which are then to be written anew."""

    def save_mark(self, mark: Mark) -> None:
        """Keep the newest event seen."""

    def set_aside(self, projection: str, position: int, *, reason: str, at: int) -> None:
        """Move the checkpoint past an event that could not be applied, and note it, at a time in ms."""

    def resolve(self, projection: str, position: int) -> None:
        """Strike out a note: the event was applied after all."""


class SetAside(NamedTuple):
    """An event that a projection could not apply; `at` is in ms since 1970 UTC."""

    projection: str
    position: int
    reason: str
    at: int


class ReadModel(Protocol):
    """The live read model, or one that is being built, as the projections see it.

    All methods raise ReadModelUnavailable, and NoReadModel where there is none of this version.
    """

    def transaction(self) -> AbstractContextManager[UnitOfWork]:
        """Open a transaction, which commits whole or not at all; nobody else writes, or swaps, meanwhile."""

    def try_lead(self) -> bool:
        """Take, or keep, the right to project into the live read model; tell whether it is this process that has it.

        Where others may project at the same time, each in its own transaction, everybody has it.
        """

    def step_down(self) -> None:
        """Let another process have the right to project."""

    def read_transaction(self) -> AbstractContextManager[ReadTransaction]:
        """Open the read model as it is now for reading; it holds up nobody."""

    def close(self) -> None:
        """Let go of every connection."""


class DraftReadModel(ReadModel, Protocol):
    """A read model that is filled fast, and of no use to anybody before it is finished."""

    def append(self, part: str, projections: Iterable[str]) -> None:
        """Add the rows of a part, by its name, which come behind those that are here; it must not be open."""

    def finish(self) -> None:
        """Make the indexes, and everything durable, and let go of every connection."""


class Generation(Protocol):
    """A read model that is being built beside the live one; it is gone afterwards unless it was promoted."""

    @property
    def name(self) -> str:
        """By which it is found."""

    def shard(self, number: int) -> Generation:
        """Return another that another process may build, and that is to be appended to this one; from 1."""

    def begin(self, versions: Mapping[str, int], *, afresh: Collection[str]) -> DraftReadModel:
        """Create it, with a checkpoint for each projection: at 0 for those to build afresh.

        The others, if any, are copied from the live one.
        """

    def finished(self) -> ReadModel:
        """Open it, once it has its indexes."""

    def promote(self) -> None:
        """Make it the live one, in one step, and the live one the previous one."""


class Generations(Protocol):
    """The live read model, the one before, and the one that is being built."""

    def live(self, *, timeout_s: float = 1) -> ReadModel:
        """Open whichever is live at the time of each use; a transaction waits so long for others."""

    def begin_rebuild(self, waits: Callable[[], None] = ...) -> AbstractContextManager[Generation]:
        """Give room for the next one to whoever builds, one at a time; `waits` is called if somebody else does.

        What a builder who died has left is removed.
        """

    def previous(self) -> Generation | None:
        """Return the one before, None if there is none; only while the right to build is held."""

    def drop_previous(self) -> None:
        """Have none before the live one; only while the right to build is held."""

    def report_progress(self, progress: RebuildProgress) -> None:
        """Let everybody know how far the building is; only while the right to build is held."""

    def rebuild_progress(self) -> RebuildProgress | None:
        """Return how far a building is that is under way anywhere, None if there is none."""
