"""The messages of the changes feed, and the notices of both feeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from projector.clock import to_rfc3339
from projector.domain.events import type_name
from projector.event_store.notices import Notice, NoticeKind
from projector.feeds.cursor import FeedCursor
from projector.feeds.folded_group import Difference, MemberDifference
from projector.read_model import shapes
from projector.read_model.shapes import Time

ChangeType: TypeAlias = Literal[
    "member.joined",
    "member.left",
    "member.updated",
    "group.created",
    "group.updated",
    "group.filled",
    "group.reopened",
    "group.dismissed",
    "group.reset",
]
CursorText: TypeAlias = Annotated[
    str, Meta(description="Where to go on after this: the value of `after`.", examples=["1041-77aa01c3-0"])
]

_NOT_COMPARED: Final = frozenset(
    {"group_id", "status", "member_count", "is_full", "position", "updated_at", "verified_at"}
)
"""Fields that are shown elsewhere in a message, and those that are no part of the state that followers keep."""


class Change(msgspec.Struct):
    """A change: `after` is the whole member, the whole group, or the value of `field`; null is none.

    A group whose creation was not recorded is `group.created` by its first event. After `group.dismissed`, no user is a
    member. After `group.reset`, read the group and its members again, at the position of the message.
    """

    type: ChangeType
    user_id: str | UnsetType = UNSET
    field: str | UnsetType = UNSET
    before: Any = None
    after: Any = None


class ChangeMessage(msgspec.Struct):
    """What one event changed in its group."""

    position: Annotated[int, Meta(ge=1)]
    cursor: CursorText
    group_id: str
    occurred_at: Time
    recorded_at: Time
    late: Annotated[bool, Meta(description="Whether something newer was known before about the same subject.")]
    cause: Annotated[str, Meta(description="The type of the event.", examples=["MembersJoined"])]
    member_count: Annotated[int, Meta(ge=0)]
    is_full: bool
    changes: list[Change]


class NoticeMessage(msgspec.Struct):
    """A change that no event causes.

    After `group.reset`, read the group and its members again, at this position. `user.forgotten` has the pseudonym that
    replaces the user's id, and the positions of the events that were changed; null is unknown, or too many.
    """

    position: Annotated[int, Meta(ge=0, description="The position that the reader has reached.")]
    cursor: CursorText
    notice: Annotated[int, Meta(ge=1, description="The number of the notice.")]
    type: NoticeKind
    recorded_at: Time
    group_id: str | None = None
    pseudonym: str | None = None
    positions: list[int] | None = None


MESSAGES: Final = (ChangeMessage, NoticeMessage)


def change_message(difference: Difference, cursor: FeedCursor) -> ChangeMessage | None:
    """Return the message about an event, None if it changed nothing that is shown."""
    event, after = difference.recorded.event, difference.after
    if not (changes := _changes(difference)):
        return None
    return ChangeMessage(
        position=difference.recorded.position,
        cursor=str(cursor),
        group_id=event.group_id,
        occurred_at=to_rfc3339(event.occurred_at),
        recorded_at=to_rfc3339(event.recorded_at),
        late=difference.late,
        cause=type_name(event),
        member_count=after.member_count,
        is_full=after.is_full,
        changes=changes,
    )


def notice_message(notice: Notice, cursor: FeedCursor) -> NoticeMessage:
    is_group = notice.kind == "group.reset"
    return NoticeMessage(
        position=cursor.position,
        cursor=str(cursor),
        notice=notice.number,
        type=notice.kind,
        recorded_at=to_rfc3339(notice.at),
        group_id=notice.subject if is_group else None,
        pseudonym=None if is_group else notice.subject,
        positions=None if notice.positions is None else [*notice.positions],
    )


def _changes(difference: Difference) -> list[Change]:
    if difference.redecides:
        return [Change("group.reset")]
    before, after = difference.before, difference.after
    is_new = before is None or before.status == "dismissed"
    if after.status == "dismissed" and not is_new:
        return [Change("group.dismissed", after=after)]
    if before is None or (is_new and after.status == "active"):
        return [Change("group.created", after=after), *map(_member_change, difference.members)]
    return [*_field_changes(before, after), *map(_member_change, difference.members)]


def _member_change(member: MemberDifference) -> Change:
    kind: ChangeType = "member.updated"
    if member.before is None:
        kind = "member.joined"
    elif member.after is None:
        kind = "member.left"
    return Change(kind, member.user_id, before=member.before, after=member.after)


def _field_changes(before: shapes.Group, after: shapes.Group) -> Iterator[Change]:
    if before.is_full != after.is_full:
        yield Change("group.filled" if after.is_full else "group.reopened", before=before.is_full, after=after.is_full)
    for name in after.__struct_fields__:
        if name not in _NOT_COMPARED and getattr(before, name) != getattr(after, name):
            yield Change("group.updated", field=name, before=getattr(before, name), after=getattr(after, name))
