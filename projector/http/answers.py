"""The shapes of the answers, which the OpenAPI document describes."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import msgspec.structs
from msgspec import Meta

from projector.clock import to_rfc3339
from projector.domain import membership, profile
from projector.domain.events import Recorded, UndecodableEvent
from projector.read_model.groups import GroupState, Membership
from projector.read_model.rows import MemberEvent

Time = Annotated[str, Meta(description="RFC 3339, UTC, with milliseconds.", examples=["2022-12-09T08:26:54.123Z"])]
Cursor = Annotated[str, Meta(description="The cursor of the next page; opaque.")]


class Group(msgspec.Struct):
    """The state of a group; null is unknown, an empty string is known to be empty."""

    group_id: str
    type: str | None
    status: profile.Status
    name: str | None
    introduction: str | None
    notification: str | None
    face_url: str | None
    owner: str | None
    custom_fields: dict[str, str]
    attributes: dict[str, str]
    member_count: Annotated[int, Meta(ge=0)]
    member_limit: Annotated[
        int | None,
        Meta(description="The member count of the full group; null if it is not full or its roster is incomplete."),
    ]
    roster_complete: Annotated[
        bool, Meta(description="Whether the creation of the group was recorded, and with it the first roster.")
    ]
    is_full: bool
    full_at: Time | None
    created_at: Time | None
    dismissed_at: Time | None
    updated_at: Time
    position: Annotated[int, Meta(ge=1, description="The position of the newest event of the group.")]


class Groups(msgspec.Struct):
    """A page of groups, ordered by group id."""

    groups: list[Group]
    next: Cursor | None


class Member(msgspec.Struct):
    """A member of a group."""

    user_id: str
    role: membership.Role
    name_card: str | None
    joined_at: Time
    join_type: membership.JoinType | None
    operator: str | None


class Members(msgspec.Struct):
    """A page of the members of a group, ordered by user id."""

    group_id: str
    member_count: Annotated[int, Meta(ge=0)]
    roster_complete: bool
    members: list[Member]
    next: Cursor | None


class UserGroup(msgspec.Struct):
    """A group of a user."""

    group_id: str
    role: membership.Role
    joined_at: Time


class UserGroups(msgspec.Struct):
    """A page of the groups that a user is a member of, ordered by group id."""

    user_id: str
    groups: list[UserGroup]
    next: Cursor | None


class Event(msgspec.Struct):
    """A recorded event; `callback` is the body as the vendor sent it."""

    position: Annotated[int, Meta(ge=1)]
    group_id: str
    type: Annotated[str, Meta(examples=["MembersJoined"])]
    occurred_at: Time
    recorded_at: Time
    operator: str | None
    platform: str | None
    callback: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]


class Events(msgspec.Struct):
    """A page of events, ordered by position."""

    events: list[Event]
    next: Cursor | None


class HistoryEvent(Event):
    """An event by which the user joined or left, or the group was dismissed."""

    change: Literal["joined", "left", "dismissed"]


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

    `position` and `updated_at` are not compared: they differ after every event.
    """

    group_id: str
    fields: dict[str, FieldChange]
    joined: list[Member]
    left: list[Member]
    changed: list[MemberChange]
    next: Cursor | None


def group(state: GroupState) -> Group:
    known, lives, fullness = state.profile, state.profile.lives, state.fullness
    member_count, roster_complete = state.roster.member_count, state.roster.lives.roster_complete
    return Group(
        group_id=state.group_id,
        type=known.type.value,
        status=known.status,
        name=known.name.value,
        introduction=known.introduction.value,
        notification=known.notification.value,
        face_url=known.face_url.value,
        owner=membership.present_owner(known.owner, state.owner_exited),
        custom_fields=profile.current(known.custom_fields),
        attributes=profile.current(known.attributes),
        member_count=member_count,
        member_limit=fullness.member_limit(member_count, roster_complete=roster_complete),
        roster_complete=roster_complete,
        is_full=fullness.is_full,
        full_at=_optional_time(fullness.full_at),
        created_at=_optional_time(lives.created_at),
        dismissed_at=_optional_time(lives.dismissed_at),
        updated_at=to_rfc3339(known.updated_at),
        position=known.position,
    )


def member(row: Membership) -> Member:
    return Member(
        user_id=row.user_id,
        role=membership.role(row.user_id, row.member, row.owner),
        name_card=membership.name_card(row.member),
        joined_at=to_rfc3339(row.member.joined[0]),
        join_type=row.member.join_type,
        operator=row.member.operator,
    )


def members(state: GroupState, page: Sequence[Membership], following: str | None) -> Members:
    return Members(
        group_id=state.group_id,
        member_count=state.roster.member_count,
        roster_complete=state.roster.lives.roster_complete,
        members=[member(row) for row in page],
        next=following,
    )


def user_group(row: Membership) -> UserGroup:
    return UserGroup(
        group_id=row.group_id,
        role=membership.role(row.user_id, row.member, row.owner),
        joined_at=to_rfc3339(row.member.joined[0]),
    )


def event(recorded: Recorded) -> Event:
    """Return an event; if it cannot be decoded, without the fields of its type."""
    known: Any = recorded.event
    return Event(
        position=recorded.position,
        group_id=known.group_id,
        type=known.stored_type if isinstance(known, UndecodableEvent) else known.TOPIC,
        occurred_at=to_rfc3339(known.occurred_at),
        recorded_at=to_rfc3339(known.recorded_at),
        operator=known.operator,
        platform=known.platform,
        callback=msgspec.Raw(known.callback.encode()),
    )


def history_event(change: MemberEvent, recorded: Recorded) -> HistoryEvent:
    return HistoryEvent(**msgspec.structs.asdict(event(recorded)), change=change)


def diff(
    earlier: GroupState | None,
    later: GroupState,
    users: Sequence[tuple[str, Membership | None, Membership | None]],
    following: str | None,
) -> Diff:
    """Return the differences between two states of a group, and a page of the users whose membership differs."""
    before, after = _fields(earlier), _fields(later)
    members_of = [(old and member(old), new and member(new)) for _, old, new in users]
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


def _fields(state: GroupState | None) -> dict[str, Any]:
    if state is None:
        return {}
    fields = msgspec.structs.asdict(group(state))
    return {name: value for name, value in fields.items() if name not in ("group_id", "updated_at", "position")}


def _optional_time(ms: int | None) -> str | None:
    return None if ms is None else to_rfc3339(ms)
