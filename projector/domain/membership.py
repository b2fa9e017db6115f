"""Membership of a user in a group: the newest join against the newest exit and the newest dismissal."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from projector.domain.events import Event, GroupCreated, MemberChanged, MembersJoined, MembersLeft, Recorded
from projector.domain.limits import bounded
from projector.domain.lives import FOREVER, NEVER, UNKNOWN, Lives, Moment, Register, moment_of

JoinType: TypeAlias = Literal["Created", "Apply", "Invited"]
OwnRole: TypeAlias = Literal["Admin", "Member"]
Role: TypeAlias = Literal["Owner", "Admin", "Member"]


class Member(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The evidence about one user in one group."""

    joined: Moment = NEVER
    join_type: JoinType | None = None
    operator: str | None = None
    exited: Moment = NEVER
    role: Register = UNKNOWN
    name_card: Register = UNKNOWN


class Standing(IntEnum):
    """The standing of a user in a group."""

    OUT = 0
    MEMBER = 1
    AWAITING = 2
    """Joined after the newest dismissal, but no creation has begun a new life yet."""


OUT, MEMBER, AWAITING = Standing


def users(event: Event) -> Sequence[str]:
    """Return the users that an event is evidence about, without repeats."""
    match event:
        case MembersJoined(members=members) | MembersLeft(members=members):
            return members if len(members) == 1 else tuple(dict.fromkeys(members))
        case GroupCreated(members=members, owner=owner):
            return tuple(dict.fromkeys((*members, owner) if owner else members))
        case MemberChanged(member=member):
            return (member,)
        case _:
            return ()


def evolve(member: Member, recorded: Recorded) -> Member:
    """Return a user's evidence with that of an event merged in; `users` of the event must include the user."""
    moment, event = moment_of(recorded), recorded.event
    match event:
        case MembersJoined() if moment > member.joined:
            return replace(
                member,
                joined=moment,
                join_type=event.join_type,
                operator=event.operator and bounded("operator", event.operator),
            )
        case GroupCreated() if moment > member.joined:
            return replace(
                member,
                joined=moment,
                join_type="Created",
                operator=event.operator and bounded("operator", event.operator),
            )
        case MembersLeft() if moment > member.exited:
            return replace(member, exited=moment)
        case MemberChanged(role=role, name_card=name_card):
            return replace(
                member,
                role=member.role if role is None else member.role.write(moment, bounded("role", role)),
                name_card=member.name_card
                if name_card is None
                else member.name_card.write(moment, bounded("name_card", name_card)),
            )
        case _:
            return member


def is_present(member: Member) -> bool:
    """Tell whether a user has joined and not left since. It does not depend on the group."""
    return member.joined > member.exited


def roster_floor(lives: Lives) -> Moment:
    """Return the moment after which a group's joins count; none count while it is dismissed."""
    return FOREVER if lives.dismissed else lives.newest_dismissal


def standing(member: Member, lives: Lives) -> Standing:
    """Return a user's standing, given the lives of the group."""
    if not is_present(member) or member.joined <= lives.newest_dismissal:
        return OUT
    return MEMBER if member.joined > roster_floor(lives) else AWAITING


def name_card(member: Member) -> str | None:
    """Return a member's name card, if it was set since the newest join."""
    return member.name_card.since(member.joined).value


def role(user_id: str, member: Member, owner: Register) -> Role:
    """Return a member's role, given the group's owner register."""
    return "Owner" if present_owner(owner, member.exited) == user_id else own_role(member)


def own_role(member: Member) -> OwnRole:
    """Return the role that a member has without being the owner."""
    return "Admin" if member.role.since(member.joined).value == "Admin" else "Member"


def present_owner(owner: Register, exited: Moment) -> str | None:
    """Return the owner; None if there is none, or if that user's newest exit came after becoming the owner."""
    return owner.value if owner.value and owner.at > exited else None
