"""Drift: the differences between what the vendor shows of a group and what the mirror has."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from projector.domain import membership, profile
from projector.domain.events import AttributesObserved, GroupObserved, ObservedMember
from projector.domain.limits import ATTRIBUTES, CUSTOM_FIELDS, bounded, bounded_entries
from projector.domain.lives import NEVER, UNKNOWN, Moment, Register
from projector.domain.membership import Member
from projector.reconciliation.mirror import MirrorGroup
from projector.reconciliation.readings import Reading

TEXTS: Final = ("name", "introduction", "notification", "face_url")
EVERYTHING: Final = ("unknown_group", "revived_group", "reborn_group")
"""Kinds for which every value of the group is appended: a life begins of which nothing is known yet."""

_SAME_CREATION_MS: Final = 10_000
_SAME_JOIN_MS: Final = 10_000
"""How much later, by the vendor's clock and in whole seconds, the same creation or join may be shown."""

CALLBACKS: Final = {
    "missing_join": ("MembersJoined", "Group.CallbackAfterNewMemberJoin"),
    "missed_rejoin": ("MembersJoined", "Group.CallbackAfterNewMemberJoin"),
    "missing_exit": ("MembersLeft", "Group.CallbackAfterMemberExit"),
    "stale_role": ("MemberChanged", "Group.CallbackAfterMemberFieldChanged"),
    "stale_name_card": ("MemberChanged", "Group.CallbackAfterMemberFieldChanged"),
    "stale_owner": ("OwnerChanged", "Group.CallbackAfterChangeGroupOwner"),
    "stale_attributes": ("AttributesChanged", "Group.CallbackAfterGroupAttrChanged"),
    "stale_custom_field": ("GroupProfileChanged", "Group.CallbackAfterGroupInfoChanged"),
    **{f"stale_profile.{text}": ("GroupProfileChanged", "Group.CallbackAfterGroupInfoChanged") for text in TEXTS},
    "full_mismatch": ("GroupFilled", "Group.CallbackAfterGroupFull"),
    "unknown_group": ("GroupCreated", "Group.CallbackAfterCreateGroup"),
    "revived_group": ("GroupCreated", "Group.CallbackAfterCreateGroup"),
    "reborn_group": ("GroupCreated", "Group.CallbackAfterCreateGroup"),
    "phantom_group": ("GroupDismissed", "Group.CallbackAfterGroupDestroyed"),
}
"""The type of event, and the command of the callback, that report a difference of a kind."""


class Difference(NamedTuple):
    """A difference: its kind, the user or key that it is about, and what the vendor shows.

    `at` is the newest evidence that the mirror has about it.
    """

    kind: str
    subject: str
    value: Any
    at: Moment = NEVER

    @property
    def key(self) -> str:
        """A hash of what the difference is about; users are not named where it is stored."""
        return _hash([self.kind, self.subject])

    @property
    def value_hash(self) -> str:
        return _hash(self.value)


def differences(reading: Reading, ours: MirrorGroup | None) -> list[Difference]:
    """Return the differences of a group, whose answers are in a reading."""
    seen = reading.group
    if seen is None:
        return [] if ours is None or ours.lives.dismissed else [Difference("phantom_group", "", None, _newest(ours))]
    if ours is None:
        return [Difference("unknown_group", "", None)]
    if ours.lives.dismissed:
        return [Difference("revived_group", "", None, ours.lives.newest_dismissal)]
    found = [*_group_differences(seen, ours), *_member_differences(reading, ours)]
    if reading.attributes is not None:
        found += _attribute_differences(reading.attributes, ours)
    return found


def unknowns(reading: Reading, ours: MirrorGroup) -> list[str]:
    """Return what the mirror does not know of an active group, and the vendor shows: it contradicts nothing."""
    seen, learned = reading.group, []
    if seen is None:
        return []
    if seen.member_limit is not None and ours.fullness.observed_limit is None:
        learned.append("limit")
    if seen.created_at is not None and ours.lives.created_at is None:
        learned.append("creation")
    if seen.group_type and ours.profile.type.value is None:
        learned.append("type")
    return learned


def _group_differences(seen: GroupObserved, ours: MirrorGroup) -> Iterator[Difference]:
    known, created_at = ours.profile, ours.lives.created_at
    if seen.created_at and created_at is not None and seen.created_at > created_at + _SAME_CREATION_MS:
        yield Difference("reborn_group", "", seen.created_at, ours.lives.opened)
    if seen.group_type and known.type.value not in (None, bounded("group_type", seen.group_type)):
        yield Difference("type_mismatch", "", seen.group_type, known.type.at)
    for field in TEXTS:
        register: Register = getattr(known, field)
        value = bounded(field, getattr(seen, field) or "")
        if (register.value or "") != (value or ""):
            yield Difference(f"stale_profile.{field}", "", value, register.at)
    if (ours.owner or "") != (bounded("owner", seen.owner or "") or ""):
        yield Difference("stale_owner", "", seen.owner, known.owner.at)
    yield from _entry_differences(
        "stale_custom_field", bounded_entries(CUSTOM_FIELDS, seen.custom_fields), known.custom_fields
    )
    if seen.member_limit is not None and ours.fullness.observed_limit not in (None, seen.member_limit):
        yield Difference("limit_mismatch", "", seen.member_limit, ours.fullness.limited)
    if seen.is_full is not None and seen.is_full != ours.fullness.is_full:
        yield Difference("full_mismatch", "", seen.is_full, max(ours.fullness.filled, ours.fullness.exited))


def _attribute_differences(seen: AttributesObserved, ours: MirrorGroup) -> Iterator[Difference]:
    shown = bounded_entries(ATTRIBUTES, seen.attributes)
    yield from _entry_differences("stale_attributes", shown, ours.profile.attributes)


def _entry_differences(kind: str, shown: dict[str, str | None], registers: dict[str, Register]) -> Iterator[Difference]:
    ours = profile.current(registers)
    for key in sorted(shown.keys() | ours.keys()):
        if shown.get(key) != ours.get(key):
            yield Difference(kind, key, shown.get(key), registers.get(key, UNKNOWN).at)


def _member_differences(reading: Reading, ours: MirrorGroup) -> Iterator[Difference]:
    for user_id, seen in reading.members.items():
        if seen.joined_at <= reading.rows[user_id].tau:  # otherwise the user joined after we asked
            yield from _of_member(user_id, seen, ours)
    if reading.is_complete:
        for user_id, member in ours.members.items():
            if user_id not in reading.members:
                yield Difference("missing_exit", user_id, None, _newest_of(member))


def _of_member(user_id: str, seen: ObservedMember, ours: MirrorGroup) -> Iterator[Difference]:
    if (member := ours.members.get(user_id)) is None:
        yield Difference("missing_join", user_id, seen.joined_at, _newest_of(ours.evidence_of(user_id)))
        return
    if seen.joined_at > membership.joined_at(member) + _SAME_JOIN_MS:
        yield Difference("missed_rejoin", user_id, seen.joined_at, _newest_of(member))
        return
    role = "Admin" if seen.role == "Admin" else "Member"
    if seen.role != "Owner" and role != membership.own_role(member):
        yield Difference("stale_role", user_id, role, max(member.entered, member.role.at))
    name_card = bounded("name_card", seen.name_card or "") or ""
    if name_card != (membership.name_card(member) or ""):
        yield Difference("stale_name_card", user_id, name_card, max(member.entered, member.name_card.at))


def _newest_of(member: Member) -> Moment:
    return max(member.entered, member.exited)


def _newest(ours: MirrorGroup) -> Moment:
    return (ours.profile.updated_at, 0)


def _hash(value: Any) -> str:
    return blake2b(msgspec.json.encode(value), digest_size=8).hexdigest()
