"""The read model: the tables that queries read, and the position that each projection has reached.

`ReadModel` is the writing side and `Queries` the reading side; both exist for SQLite and for PostgreSQL.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from projector.domain.lives import Moment
from projector.domain.profile import Profile
from projector.read_model.blocks import Block
from projector.read_model.query_session import QuerySession
from projector.read_model.rows import GroupRow, GroupSnapshot, MemberVersion, RosterUsers
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

    def append(self, shard: str) -> None:
        """Add the rows from a finished shard, by its name; their keys are above all keys here."""

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

    def groups(self, group_ids: Iterable[str]) -> dict[str, GroupRow]: ...

    def save_groups(self, groups: Iterable[GroupRow]) -> None: ...

    def texts(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        """Look up the texts of profiles."""

    def save_texts(self, texts: Mapping[str, Profile]) -> None: ...

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberVersion]:
        """Look up the newest versions by (group, user)."""

    def count_present(self, group_id: str, since: Moment) -> int:
        """Count the users who are present and joined after a moment."""

    def present_users(self, group_id: str, since: Moment) -> Iterator[str]:
        """Yield the same users."""

    def save_present(self, newest: Iterable[MemberVersion]) -> None:
        """Save users who are present."""

    def save_absent(self, newest: Iterable[MemberVersion]) -> None:
        """Save users who are not present."""

    def delete_present(self, keys: Iterable[tuple[str, str]]) -> None:
        """Delete users who are not present any more, by (group, user)."""

    def save_earlier(self, versions: Iterable[MemberVersion]) -> None:
        """Save versions that newer ones have replaced."""

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        """Return the version of a group's newest RosterUsers, and the number of users in it."""

    def save_roster_users(self, users: RosterUsers) -> None: ...

    def save_snapshots(self, snapshots: Iterable[tuple[str, GroupSnapshot]]) -> None: ...

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[str, Block]:
        """Look up one block of each group, by (group, number)."""

    def delete_blocks(self, keys: Iterable[tuple[str, int]]) -> None: ...

    def save_blocks(self, blocks: Iterable[Block]) -> None: ...

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        """Save dismissals: group, effective time in ms, position."""
