"""The profile of a group: each field is a last-writer-wins register, valid in the life in which it was written."""

from collections.abc import Mapping
from heapq import nlargest
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from projector.domain import lives as group_lives
from projector.domain.events import (
    AttributesChanged,
    AttributesObserved,
    Event,
    GroupFilled,
    GroupObserved,
    MemberChanged,
    MembersJoined,
    MembersLeft,
    MembersObserved,
    MembersObservedAbsent,
    OwnerChanged,
    ProfileFact,
    Recorded,
    RosterObserved,
)
from projector.domain.limits import ATTRIBUTES, CUSTOM_FIELDS, MapLimit, bounded, bounded_entries
from projector.domain.lives import NEVER, UNKNOWN, Lives, Moment, Register, moment_of

_EVIDENCE: Final = (ProfileFact, OwnerChanged, AttributesChanged, AttributesObserved)
_TEXT_FIELDS = ("name", "introduction", "notification", "face_url", "owner")
_WITHOUT_TEXTS: Final = (
    *(MembersJoined, MembersLeft, MemberChanged, GroupFilled, OwnerChanged),
    *(MembersObserved, MembersObservedAbsent, RosterObserved),
)

Status: TypeAlias = Literal["active", "dismissed"]


class Profile(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The evidence about one group's profile; `updated_at` (ms) and `position` are the highest of its events."""

    lives: Lives = Lives()
    updated_at: int = 0
    position: int = 0
    type: Register = UNKNOWN
    name: Register = UNKNOWN
    introduction: Register = UNKNOWN
    notification: Register = UNKNOWN
    face_url: Register = UNKNOWN
    owner: Register = UNKNOWN
    custom_fields: dict[str, Register] = {}
    attributes: dict[str, Register] = {}
    attributes_reset: Moment = NEVER

    @property
    def status(self) -> Status:
        return "dismissed" if self.lives.dismissed else "active"


def evolve(profile: Profile, recorded: Recorded) -> Profile:
    """Return the profile with the evidence of an event merged in."""
    event, moment = recorded.event, moment_of(recorded)
    lives = group_lives.evolve(profile.lives, recorded)
    floor = lives.floor
    if lives is not profile.lives and floor > profile.lives.floor:
        profile = _since(floor, profile)
    group_type = profile.type
    if moment > floor:
        if name := event.group_type:
            group_type = group_type.write(moment, name if name == group_type.value else bounded("group_type", name))
        if isinstance(event, _EVIDENCE):
            profile = _written(profile, moment, event)
    return replace(
        profile,
        lives=lives,
        updated_at=max(profile.updated_at, event.occurred_at),
        position=max(profile.position, recorded.position),
        type=group_type,
    )


def concerns_texts(event: Event) -> bool:
    """Tell whether an event may change more of a profile than its brief part."""
    return type(event) not in _WITHOUT_TEXTS


def brief(profile: Profile) -> Profile:
    """Return the part of a profile that changes with every event: lives, type, owner, and its newest event."""
    return Profile(
        lives=profile.lives,
        updated_at=profile.updated_at,
        position=profile.position,
        type=profile.type,
        owner=profile.owner,
    )


def texts(profile: Profile) -> Profile:
    """Return the other part."""
    return whole(Profile(), profile)


def whole(brief: Profile, texts: Profile) -> Profile:
    """Return the profile that has these two parts."""
    return replace(
        texts,
        lives=brief.lives,
        updated_at=brief.updated_at,
        position=brief.position,
        type=brief.type,
        owner=brief.owner,
    )


def current(registers: Mapping[str, Register]) -> dict[str, str]:
    """Return the values of all registers that have one."""
    return {key: register.value for key, register in registers.items() if register.value is not None}


def _written(profile: Profile, moment: Moment, event: Event) -> Profile:
    """Return the profile with the registers written by an event of this life."""
    match event:
        case ProfileFact():
            return replace(
                profile,
                custom_fields=_custom_fields(profile, moment, event),
                **{
                    field: getattr(profile, field).write(moment, bounded(field, value))
                    for field in _TEXT_FIELDS
                    if (value := getattr(event, field)) is not None
                },
            )
        case OwnerChanged(owner=owner):
            return replace(profile, owner=profile.owner.write(moment, bounded("owner", owner)))
        case AttributesChanged():
            return _attributes(profile, moment, event)
        case AttributesObserved(attributes=attributes, gone=gone):
            entries = bounded_entries(ATTRIBUTES, attributes) | dict.fromkeys(gone)
            return _attributes_written(profile, moment, entries, profile.attributes_reset)
        case _:
            return profile


def _custom_fields(profile: Profile, moment: Moment, event: ProfileFact) -> dict[str, Register]:
    gone = event.custom_fields_gone if isinstance(event, GroupObserved) else ()
    if not (event.custom_fields or gone):
        return profile.custom_fields
    entries = bounded_entries(CUSTOM_FIELDS, event.custom_fields) | dict.fromkeys(gone)
    return _newest(_write(profile.custom_fields, moment, entries), CUSTOM_FIELDS)


def _attributes(profile: Profile, moment: Moment, event: AttributesChanged) -> Profile:
    entries = bounded_entries(ATTRIBUTES, event.attributes)
    reset = profile.attributes_reset
    if event.operation == "delete":
        entries = dict.fromkeys(entries)
    elif event.operation == "clear":
        entries = {}
    if event.operation in ("set", "clear"):
        reset = max(reset, moment)
    return _attributes_written(profile, moment, entries, reset)


def _attributes_written(profile: Profile, moment: Moment, entries: Mapping[str, str | None], reset: Moment) -> Profile:
    registers = _write(profile.attributes, moment, entries)
    kept = {key: register for key, register in registers.items() if register.at >= reset}
    return replace(profile, attributes_reset=reset, attributes=_newest(kept, ATTRIBUTES))


def _write(registers: dict[str, Register], moment: Moment, entries: Mapping[str, str | None]) -> dict[str, Register]:
    return registers | {key: registers.get(key, UNKNOWN).write(moment, value) for key, value in entries.items()}


def _newest(registers: dict[str, Register], limit: MapLimit) -> dict[str, Register]:
    """Return the registers with the newest writes, deletions included, and of those of one event the last keys.

    A register that is dropped here would be dropped after every later event too: the others only grow newer.
    """
    if len(registers) <= limit.keys:
        return registers
    return dict(nlargest(limit.keys, registers.items(), key=lambda item: (item[1].at, item[0])))


def _since(floor: Moment, profile: Profile) -> Profile:
    """Clear the registers written in an earlier life."""
    return replace(
        profile,
        type=profile.type.since(floor),
        custom_fields={key: register for key, register in profile.custom_fields.items() if register.at > floor},
        attributes={key: register for key, register in profile.attributes.items() if register.at > floor},
        attributes_reset=profile.attributes_reset if profile.attributes_reset > floor else NEVER,
        **{field: getattr(profile, field).since(floor) for field in _TEXT_FIELDS},
    )
