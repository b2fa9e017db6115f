"""The read model: the tables that queries read, and the position that each projection has reached.

`ReadModel` is the writing side and `Queries` the reading side; both exist for SQLite and for PostgreSQL.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from projector.domain.fullness import Fullness
from projector.domain.profile import Profile
from projector.read_model.blocks import Block
from projector.read_model.query_session import QuerySession
from projector.read_model.rows import MemberRow, Roster, RosterSnapshot, RosterUsers, StreamSnapshot
from projector.read_model.unit_of_work import ReadTransaction, UnitOfWork


class ReadModelUnavailable(Exception):
    """The read model could not be read or written; nothing changed. The text says why."""


class NoReadModel(ReadModelUnavailable):
    """There is no read model of this schema version yet."""


class ReadModel(Protocol):
    """The live read model, or one that is being built.

    All methods raise ReadModelUnavailable, and NoReadModel if there is no read model of this schema version.
    """

    def transaction(self) -> AbstractContextManager[UnitOfWork]:
        """Open a transaction that excludes other writers and a change of the live read model; commit it, or undo it."""

    def try_lead(self) -> bool:
        """Acquire, or keep, the right to project into the live read model; return whether this process has it.

        Where several processes may project, each in its own transactions, all of them have it.
        """

    def step_down(self) -> None:
        """Give up the right to project."""

    def read_transaction(self) -> AbstractContextManager[ReadTransaction]:
        """Open a transaction that reads one consistent state; it blocks no writer."""

    def close(self) -> None:
        """Close every connection."""


class DraftReadModel(ReadModel, Protocol):
    """A read model that is filled fast and cannot be used before it is finished."""

    def append(self, shard: str, projections: Iterable[str]) -> None:
        """Add these projections' rows from a finished shard, by its name; their keys are above all keys here."""

    def finish(self) -> None:
        """Create the indexes, make everything durable, and close every connection."""


class Queries(Protocol):
    """The live read model, for reading."""

    def session(self) -> AbstractContextManager[QuerySession]:
        """Open a session, which reads one consistent state. Raises ReadModelUnavailable."""

    def version(self) -> Hashable | None:
        """Return a value that differs for each committed state; None if it is not available at once."""

    def close(self) -> None:
        """Close every connection."""


class Tables(Protocol):
    """The tables that projections read and write.

    Lookups return only what exists, save methods insert rows or replace those with the same key.
    """

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]: ...

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        """Look up rows by (group, user)."""

    def present(self, group_id: str) -> Iterator[MemberRow]:
        """Yield a group's rows whose standing is member or awaiting."""

    def present_users(self, group_id: str) -> Iterator[str]:
        """Yield only the user ids of the same rows."""

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None: ...

    def save_members(self, rows: Iterable[MemberRow]) -> None: ...

    def save_earlier_members(self, rows: Iterable[MemberRow]) -> None:
        """Save versions of rows that newer ones have replaced."""

    def save_roster_snapshots(self, snapshots: Iterable[RosterSnapshot]) -> None: ...

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        """Return the version of a group's newest RosterUsers, and the number of users in it."""

    def save_roster_users(self, users: RosterUsers) -> None: ...

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]: ...

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None: ...

    def save_profile_snapshots(self, snapshots: Iterable[StreamSnapshot[Profile]]) -> None: ...

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]: ...

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None: ...

    def save_fullness_snapshots(self, snapshots: Iterable[StreamSnapshot[Fullness]]) -> None: ...

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Block]:
        """Look up blocks by (group, number)."""

    def save_blocks(self, blocks: Iterable[Block]) -> None: ...

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        """Save dismissals: group, effective time in ms, position."""
