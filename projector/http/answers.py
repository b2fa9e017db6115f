"""The shapes of the answers, which the OpenAPI document describes."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, cast

import msgspec
import msgspec.structs
from msgspec import Meta

from projector.clock import to_rfc3339
from projector.domain.events import Recorded, type_name
from projector.feeds.messages import NoticeMessage
from projector.read_model.groups import RosterPage
from projector.read_model.rows import MemberEvent
from projector.read_model.shapes import Group, Member, Time, UserGroup
from projector.time_travel.past_group import Membership

Cursor = Annotated[str, Meta(description="The cursor of the next page; opaque.")]


_NOT_COMPARED: Final = ("group_id", "updated_at", "position", "verified_at")


class Groups(msgspec.Struct):
    """A page of groups, ordered by group id."""

    groups: list[Group]
    next: Cursor | None


class Members(msgspec.Struct):
    """A page of the members of a group, ordered by user id."""

    group_id: str
    member_count: Annotated[int, Meta(ge=0)]
    roster_complete: bool
    members: list[Member]
    next: Cursor | None


class UserGroups(msgspec.Struct):
    """A page of the groups that a user is a member of, ordered by group id."""

    user_id: str
    groups: list[UserGroup]
    next: Cursor | None


class Event(msgspec.Struct):
    """A recorded event.

    `callback` is the body as the vendor sent it, or the part of the vendor's answer that was observed.
    """

    position: Annotated[int, Meta(ge=1)]
    group_id: str
    type: Annotated[str, Meta(examples=["MembersJoined"])]
    source: Annotated[
        Literal["callback", "reconcile"], Meta(description="Whether a callback reported it or the REST API showed it.")
    ]
    occurred_at: Time
    recorded_at: Time
    operator: str | None
    platform: str | None
    callback: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]


class Events(msgspec.Struct, omit_defaults=True):
    """A page of events, ordered by position. Only readers of all events who sent a cursor of the feed get notices."""

    events: list[Event]
    next: Cursor | None
    notices: list[NoticeMessage] = []


class HistoryEvent(Event):
    """An event by which the user joined or left, or was observed to be a member or none, or the group was dismissed."""

    change: Literal["joined", "left", "dismissed", "observed_member", "observed_absent", "observed_dismissed"]


class History(msgspec.Struct):
    """A page of the joins and exits of a user in a group, newest first by effective time."""

    history: list[HistoryEvent]
    next: Cursor | None


class FieldChange(msgspec.Struct):
    """A field of a group before and after."""

    before: Any
    after: Any


class MemberChange(msgspec.Struct):
    """A member before and after."""

    before: Member
    after: Member


class Diff(msgspec.Struct):
    """The differences of a group between two moments, with a page of the members that differ, ordered by user id.

    `position`, `updated_at` and `verified_at` are not compared.
    """

    group_id: str
    fields: dict[str, FieldChange]
    joined: list[Member]
    left: list[Member]
    changed: list[MemberChange]
    next: Cursor | None


def members(group_id: str, roster: RosterPage, following: str | None) -> Members:
    """Return a page of members, whose JSON is sent as it is."""
    page = msgspec.Raw(f"[{','.join(roster.members)}]".encode())
    return Members(group_id, roster.member_count, roster.roster_complete, cast("list[Member]", page), following)


def event(recorded: Recorded) -> Event:
    """Return an event; if it cannot be decoded, without the fields of its type."""
    known: Any = recorded.event
    return Event(
        position=recorded.position,
        group_id=known.group_id,
        type=type_name(known),
        source=known.SOURCE,
        occurred_at=to_rfc3339(known.occurred_at),
        recorded_at=to_rfc3339(known.recorded_at),
        operator=known.operator,
        platform=known.platform,
        callback=msgspec.Raw(known.callback.encode()),
    )


def history_event(change: MemberEvent, recorded: Recorded) -> HistoryEvent:
    is_observed = change == "dismissed" and recorded.event.SOURCE == "reconcile"
    fields = msgspec.structs.asdict(event(recorded))
    return HistoryEvent(**fields, change="observed_dismissed" if is_observed else change)


def diff(
    earlier: Group | None,
    later: Group,
    users: Sequence[tuple[str, Membership | None, Membership | None]],
    following: str | None,
) -> Diff:
    """Return the differences between two states of a group, and a page of the users whose membership differs."""
    before, after = _fields(earlier), _fields(later)
    members_of = [(old and old.shown(), new and new.shown()) for _, old, new in users]
    return Diff(
        group_id=later.group_id,
        fields={
            name: FieldChange(before.get(name), value) for name, value in after.items() if before.get(name) != value
        },
        joined=[new for old, new in members_of if new and not old],
        left=[old for old, new in members_of if old and not new],
        changed=[MemberChange(old, new) for old, new in members_of if old and new],
        next=following,
    )


def _fields(group: Group | None) -> dict[str, Any]:
    if group is None:
        return {}
    fields = msgspec.structs.asdict(group)
    return {name: value for name, value in fields.items() if name not in _NOT_COMPARED}
