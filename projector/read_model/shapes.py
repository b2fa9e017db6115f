"""The shapes in which groups and members are shown, now and in the past."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from projector.clock import to_rfc3339
from projector.domain import membership, profile
from projector.domain.fullness import Fullness
from projector.domain.lives import Moment, Register
from projector.domain.profile import Profile

Time = Annotated[str, Meta(description="RFC 3339, UTC, with milliseconds.", examples=["2022-12-09T08:26:54.123Z"])]

_encode: Final = msgspec.json.Encoder().encode


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
        Meta(
            description="The observed limit; without one, the member count of the full group with a complete roster,"
            " else null."
        ),
    ]
    roster_complete: Annotated[
        bool,
        Meta(
            description="Whether the creation of the group was recorded, and with it the first roster, or the whole"
            " roster was observed."
        ),
    ]
    is_full: bool
    full_at: Time | None
    created_at: Time | None
    dismissed_at: Time | None
    updated_at: Time
    position: Annotated[int, Meta(ge=1, description="The position of the newest event of the group.")]
    verified_at: Annotated[
        Time | None,
        Meta(description="When a run last found no difference from the REST API; null for the past, and if never."),
    ] = None


class Member(msgspec.Struct):
    """A member of a group."""

    user_id: str
    role: membership.Role
    name_card: str | None
    joined_at: Time
    join_type: membership.JoinType | None
    operator: str | None


class UserGroup(msgspec.Struct):
    """A group of a user."""

    group_id: str
    role: membership.Role
    joined_at: Time


def group(group_id: str, known: Profile, member_count: int, fullness: Fullness, owner_exited: Moment) -> Group:
    """Return a group as its evidence shows it; `owner_exited` is the newest exit of the user in its owner register."""
    lives = known.lives
    return Group(
        group_id=group_id,
        type=known.type.value,
        status=known.status,
        name=known.name.value,
        introduction=known.introduction.value,
        notification=known.notification.value,
        face_url=known.face_url.value,
        owner=membership.present_owner(known.owner, owner_exited),
        custom_fields=profile.current(known.custom_fields),
        attributes=profile.current(known.attributes),
        member_count=member_count,
        member_limit=fullness.member_limit(member_count, roster_complete=lives.roster_complete),
        roster_complete=lives.roster_complete,
        is_full=fullness.is_full,
        full_at=optional_time(fullness.full_at),
        created_at=optional_time(lives.created_at),
        dismissed_at=optional_time(lives.dismissed_at),
        updated_at=to_rfc3339(known.updated_at),
        position=known.position,
    )


def member(user_id: str, known: membership.Member, role: membership.Role) -> Member:
    join_type, operator = membership.joining(known)
    return Member(
        user_id=user_id,
        role=role,
        name_card=membership.name_card(known),
        joined_at=to_rfc3339(membership.joined_at(known)),
        join_type=join_type,
        operator=operator,
    )


def member_of(user_id: str, known: membership.Member, owner: Register) -> Member:
    """Return a member, given the group's owner register."""
    return member(user_id, known, membership.role(user_id, known, owner))


def encoded(shape: Group | Member | UserGroup) -> str:
    return _encode(shape).decode()


def as_owner(encoded_member: str) -> str:
    """Return a member's JSON with the role of the owner. Inside values, JSON escapes the quotation marks."""
    before, _, after = encoded_member.partition('","role":"')
    _, _, rest = after.partition('"')
    return f'{before}","role":"Owner"{rest}'


def optional_time(ms: int | None) -> str | None:
    return None if ms is None else to_rfc3339(ms)
