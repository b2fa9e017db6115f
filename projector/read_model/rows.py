"""What the tables of the read model hold, as Python values."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from projector.domain.lives import Lives
from projector.domain.membership import Member, Standing

_Evidence = TypeVar("_Evidence")


class Checkpoint(NamedTuple):
    """The position a projection has reached, and the version of the projection that wrote the rows."""

    version: int
    position: int


class Mark(NamedTuple):
    """The newest event in the read model; it shows whether the read model was built from the present events."""

    position: int
    fingerprint: bytes


class SetAside(NamedTuple):
    """An event that a projection could not apply, and when it tried (ms since 1970 UTC)."""

    projection: str
    position: int
    reason: str
    at: int


class Roster(NamedTuple):
    """A group's lives, and the number of its current members."""

    lives: Lives = Lives()
    member_count: int = 0


Change: TypeAlias = Literal["joined", "left"]
MemberEvent: TypeAlias = Literal["joined", "left", "dismissed"]


class MemberRow(msgspec.Struct, frozen=True, gc=False):
    """One user in one group: the evidence, and the standing that follows from it.

    `position`, `at` (ms since 1970 UTC) and `change` are those of the newest event about this user in this group,
    whether it changed anything or not. Each such event makes one version of the row.
    """

    group_id: str
    user_id: str
    member: Member
    standing: Standing
    position: int
    at: int
    change: Change | None


class StreamSnapshot(NamedTuple, Generic[_Evidence]):
    """The evidence of one fold after the event at this version of a group's stream."""

    group_id: str
    version: int
    evidence: _Evidence


class RosterSnapshot(NamedTuple):
    """A roster after the event at this version of the group's stream, which has this position."""

    group_id: str
    version: int
    position: int
    lives: Lives
    member_count: int


class RosterUsers(NamedTuple):
    """The users who were members or awaiting after the event at this version, in order."""

    group_id: str
    version: int
    users: Sequence[str]


class TableRows(NamedTuple):
    """The rows of a table, in order of their key, which is their first `width` columns."""

    table: str
    width: int
    values: Iterator[tuple[Any, ...]]
