"""Membership of a user in a group: the newest join or observation against the newest exit and dismissal."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from projector.domain.events import (
    Event,
    GroupCreated,
    MemberChanged,
    MembersJoined,
    MembersLeft,
    MembersObserved,
    MembersObservedAbsent,
    Recorded,
)
from projector.domain.limits import bounded
from projector.domain.lives import FOREVER, NEVER, UNKNOWN, Lives, Moment, Register, moment_of

JoinType: TypeAlias = Literal["Created", "Apply", "Invited"]
OwnRole: TypeAlias = Literal["Admin", "Member"]
Role: TypeAlias = Literal["Owner", "Admin", "Member"]

_SAME_STINT_MS: Final = 10_000
"""How much earlier than the observed JoinTime, which is in seconds and by another clock, a join may be reported."""


class Member(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The evidence about one user in one group.

    `exited` is the newest exit or observed absence. `seen` is the newest observation as a member, since `seen_since`
    (ms) without a break; it restarts role and name card, as a join does, and sets those that it showed.
    """

    joined: Moment = NEVER
    join_type: JoinType | None = None
    operator: str | None = None
    exited: Moment = NEVER
    seen: Moment = NEVER
    seen_since: int = 0
    role: Register = UNKNOWN
    name_card: Register = UNKNOWN

    @property
    def entered(self) -> Moment:
        """The newest evidence of being a member."""
        return max(self.joined, self.seen)


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
        case MembersJoined(members=members) | MembersLeft(members=members) | MembersObservedAbsent(members=members):
            return members if len(members) == 1 else tuple(dict.fromkeys(members))
        case GroupCreated(members=members, owner=owner):
            return tuple(dict.fromkeys((*members, owner) if owner else members))
        case MemberChanged(member=member):
            return (member,)
        case MembersObserved(members=observed):
            return tuple(observed)
        case _:
            return ()


def evolve(user_id: str, member: Member, recorded: Recorded) -> Member:
    """Return a user's evidence with that of an event merged in; `users` of the event must include the user."""
    moment, event = moment_of(recorded), recorded.event
    match event:
        case MembersJoined(join_type=join_type) if moment > member.joined:
            return _joined(member, moment, join_type, event)
        case GroupCreated() if moment > member.joined:
            return _joined(member, moment, "Created", event)
        case MembersLeft() | MembersObservedAbsent() if moment > member.exited:
            return replace(member, exited=moment)
        case MembersObserved(members=observed):
            seen = observed[user_id]
            if moment > member.seen:
                member = replace(member, seen=moment, seen_since=seen.joined_at)
            return _written(member, moment, seen.role, seen.name_card)
        case MemberChanged(role=role, name_card=name_card):
            return _written(member, moment, role, name_card)
        case _:
            return member


def _joined(member: Member, moment: Moment, join_type: JoinType | None, event: Event) -> Member:
    operator = event.operator and bounded("operator", event.operator)
    return replace(member, joined=moment, join_type=join_type, operator=operator)


def _written(member: Member, moment: Moment, role: str | None, name_card: str | None) -> Member:
    return replace(
        member,
        role=member.role if role is None else member.role.write(moment, bounded("role", role)),
        name_card=member.name_card
        if name_card is None
        else member.name_card.write(moment, bounded("name_card", name_card)),
    )


def is_present(member: Member) -> bool:
    """Tell whether the newest evidence about a user is being a member. It does not depend on the group."""
    return member.entered > member.exited


def roster_floor(lives: Lives) -> Moment:
    """Return the moment after which evidence of being a member counts; none count while it is dismissed."""
    return FOREVER if lives.dismissed else lives.newest_dismissal


def standing(member: Member, lives: Lives) -> Standing:
    """Return a user's standing, given the lives of the group."""
    if not is_present(member) or member.entered <= lives.newest_dismissal:
        return OUT
    return MEMBER if member.entered > roster_floor(lives) else AWAITING


def joined_at(member: Member) -> int:
    """Return since when a member is one, in ms: the later of the newest join and the observed time of joining.

    Each counts unless the newest exit is newer.
    """
    return max(member.joined[0] if member.joined > member.exited else 0, _observed_since(member))


def joining(member: Member) -> tuple[JoinType | None, str | None]:
    """Return the join type and the operator, None unless the newest join began the present stint."""
    is_present_stint = member.joined > member.exited and member.joined[0] + _SAME_STINT_MS >= _observed_since(member)
    return (member.join_type, member.operator) if is_present_stint else (None, None)


def name_card(member: Member) -> str | None:
    """Return a member's name card, if it was set since the newest join or observation."""
    return _present(member, member.name_card)


def own_role(member: Member) -> OwnRole:
    """Return the role that a member has without being the owner."""
    return "Admin" if _present(member, member.role) == "Admin" else "Member"


def role(user_id: str, member: Member, owner: Register) -> Role:
    """Return a member's role, given the group's owner register."""
    return "Owner" if present_owner(owner, member.exited) == user_id else own_role(member)


def present_owner(owner: Register, exited: Moment) -> str | None:
    """Return the owner; None if there is none, or if that user's newest exit came after becoming the owner."""
    return owner.value if owner.value and owner.at > exited else None


def _present(member: Member, register: Register) -> str | None:
    return register.value if register.at >= member.entered else None


def _observed_since(member: Member) -> int:
    return member.seen_since if member.seen > member.exited else 0
