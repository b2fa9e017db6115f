"""What the tables of the read model hold, as Python values."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, Moment
from projector.domain.membership import Member
from projector.domain.profile import Profile
from projector.read_model.blocks import Block


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


Change: TypeAlias = Literal["joined", "left", "observed_member", "observed_absent"]
MemberEvent: TypeAlias = Literal["joined", "left", "observed_member", "observed_absent", "dismissed"]


class GroupRow(NamedTuple):
    """A group without its texts.

    `owner_exited` is the newest exit of the user in the owner register; `block` is the newest block of the stream.
    """

    group_id: str
    profile: Profile
    fullness: Fullness
    member_count: int
    owner_exited: Moment
    block: Block


class MemberVersion(NamedTuple):
    """The evidence about a user in a group after an event about that user.

    `position`, `at` (ms since 1970 UTC) and `change` are those of the event, whether it changed anything or not;
    `is_first` is 1 for the user's first event in this group, else 0.
    """

    group_id: str
    user_id: str
    position: int
    at: int
    is_first: int
    change: Change | None
    member: Member


class GroupSnapshot(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The whole profile, the fullness and the member count after the event at a version of a group's stream."""

    version: int = 0
    position: int = 0
    member_count: int = 0
    profile: Profile = Profile()
    fullness: Fullness = Fullness()


class RosterUsers(NamedTuple):
    """The users who were members, or awaited a creation, after the event at this version, in order."""

    group_id: str
    version: int
    users: Sequence[str]


class TableRows(NamedTuple):
    """The rows of a table, in order of their key, which is their first `width` columns."""

    table: str
    width: int
    values: Iterator[tuple[Any, ...]]


class GroupEvidence(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a group's row keeps for the next event, and shows nobody."""

    profile: Profile = Profile()
    fullness: Fullness = Fullness()
    owner_exited: Moment = NEVER
    block: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """The fields of the newest block without its group."""
