"""Corrections: the events that say what a reading showed, of everything or of some differences only."""

from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import replace

from projector.clock import now_ms
from projector.domain import profile
from projector.domain.events import (
    AttributesObserved,
    Event,
    GroupObserved,
    GroupObservedAbsent,
    MembersObserved,
    MembersObservedAbsent,
    RosterObserved,
)
from projector.event_store import Candidate
from projector.reconciliation.drift import EVERYTHING, TEXTS, Difference
from projector.reconciliation.mirror import MirrorGroup
from projector.reconciliation.readings import Reading
from projector.reconciliation.rest_client import Answer

_MEMBERS_AT_ONCE: Final = 500
_OF_MEMBERS: Final = ("missing_join", "missed_rejoin", "stale_role", "stale_name_card")
_OF_GROUP: Final = ("type_mismatch", "limit_mismatch", "full_mismatch", "stale_owner", "stale_custom_field")


def whole_group(reading: Reading, ours: MirrorGroup | None, *, run: int, reason: str) -> Iterator[Event]:
    """Yield events with everything that a reading showed, for a life of which nothing is known.

    What the mirror has of the life, and the reading lacks, is deleted, but for members.
    """
    seen = reading.group
    assert seen is not None
    known = ours.profile if ours else profile.Profile()
    gone = profile.current(known.custom_fields).keys() - seen.custom_fields.keys()
    yield replace(seen, run=run, reasons=(reason,), custom_fields_gone=tuple(sorted(gone)))
    present = [user for user, member in reading.members.items() if member.joined_at <= reading.rows[user].tau]
    yield from members_seen(reading, present, run=run, reasons=(reason,))
    if reading.attributes is not None:
        lost = profile.current(known.attributes).keys() - reading.attributes.attributes.keys()
        if lost or reading.attributes.attributes:
            yield replace(reading.attributes, run=run, reasons=(reason,), gone=tuple(sorted(lost)))
    if reading.is_complete:
        yield roster_seen(reading, run=run)


def learned(reading: Reading, *, run: int, reasons: Sequence[str]) -> Event:
    """Return an event with the limit, the type and the creation of a group, and nothing else."""
    assert reading.group is not None
    return replace(_without_values(reading.group), run=run, reasons=tuple(reasons), is_full=None)


def roster_seen(reading: Reading, *, run: int) -> Event:
    """Return the event that the whole roster was read, and is known."""
    assert reading.group is not None
    tau = min((row.tau for row in reading.rows.values()), default=reading.group.occurred_at)
    return RosterObserved(
        group_id=reading.group_id,
        occurred_at=tau,
        recorded_at=now_ms(),
        run=run,
        asked_at=reading.group.asked_at,
        member_count=len(reading.rows),
    )


def corrections(
    reading: Reading, ours: MirrorGroup | None, found: Sequence[Difference], *, run: int
) -> Iterator[Event]:
    """Yield the events that correct these differences, except members who are no longer ones."""
    kinds = {difference.kind for difference in found}
    for kind in EVERYTHING:
        if kind in kinds:
            yield from whole_group(reading, ours, run=run, reason=kind)
            return
    if reading.gone is not None:
        yield _group_absent(reading, run)
    yield from _group_changed(reading, [item for item in found if _is_of_group(item.kind)], run)
    users = dict.fromkeys(difference.subject for difference in found if difference.kind in _OF_MEMBERS)
    yield from members_seen(reading, [*users], run=run, reasons=sorted(kinds.intersection(_OF_MEMBERS)))
    changed = [difference.subject for difference in found if difference.kind == "stale_attributes"]
    if changed and reading.attributes is not None:
        yield _attributes_changed(reading.attributes, changed, run)


def members_seen(reading: Reading, users: Sequence[str], *, run: int, reasons: Sequence[str]) -> Iterator[Event]:
    """Yield events that show these members."""
    for chunk in _chunks(users):
        rows = [reading.rows[user] for user in chunk]
        yield MembersObserved(
            group_id=reading.group_id,
            occurred_at=min(row.tau for row in rows),
            recorded_at=now_ms(),
            run=run,
            asked_at=reading.group.asked_at if reading.group else 0,
            reasons=tuple(reasons),
            members={user: reading.members[user] for user in chunk},
            callback=_encode({"GroupId": reading.group_id, "MemberList": [row.answer for row in rows]}),
        )


def members_absent(group_id: str, users: Sequence[str], answer: Answer, *, run: int) -> Event:
    """Return the event that these users are no members, by an answer."""
    named = set(users)
    shown = [item for item in answer.fields.get("UserIdList", ()) if item.get("Member_Account") in named]
    return MembersObservedAbsent(
        group_id=group_id,
        occurred_at=answer.tau,
        recorded_at=now_ms(),
        run=run,
        asked_at=answer.asked_at,
        reasons=("missing_exit",),
        members=tuple(users),
        callback=_encode({"GroupId": group_id, "UserIdList": shown}),
    )


def unlisted(reading: Reading, users: Sequence[str], *, run: int) -> Event:
    """Return the event that these users are no members, by a whole roster."""
    assert reading.group is not None
    tau = min((row.tau for row in reading.rows.values()), default=reading.group.occurred_at)
    answer = Answer({}, min(tau, reading.group.occurred_at), reading.group.asked_at)
    return members_absent(reading.group_id, users, answer, run=run)


def candidate(event: Event, run: int) -> Candidate:
    """Return an event with its identity: what a run appends twice is stored once."""
    content = msgspec.json.encode((run, event.TOPIC, replace(event, recorded_at=0)), order="sorted")
    digest = blake2b(content, digest_size=12).digest()
    return Candidate(event, event.occurred_at.to_bytes(6, "big") + digest)


def _group_absent(reading: Reading, run: int) -> Event:
    now = now_ms()
    return GroupObservedAbsent(
        group_id=reading.group_id,
        occurred_at=reading.gone_at,
        recorded_at=now,
        run=run,
        asked_at=now,
        reasons=("phantom_group",),
        callback=_encode({"ErrorInfo": reading.gone, "GroupId": reading.group_id}),
    )


def _group_changed(reading: Reading, found: Sequence[Difference], run: int) -> Iterator[Event]:
    seen = reading.group
    if seen is None or not found:
        return
    kinds = {difference.kind for difference in found}
    fields = [field for field in TEXTS if f"stale_profile.{field}" in kinds]
    keys = [difference.subject for difference in found if difference.kind == "stale_custom_field"]
    yield replace(
        _without_values(seen),
        run=run,
        reasons=tuple(sorted(kinds)),
        owner=seen.owner if "stale_owner" in kinds else None,
        is_full=seen.is_full if "full_mismatch" in kinds else None,
        custom_fields=_chosen(seen.custom_fields, keys),
        custom_fields_gone=tuple(key for key in keys if key not in seen.custom_fields),
        **{field: getattr(seen, field) for field in fields},
    )


def _attributes_changed(seen: AttributesObserved, keys: Sequence[str], run: int) -> Event:
    return replace(
        seen,
        run=run,
        reasons=("stale_attributes",),
        attributes=_chosen(seen.attributes, keys),
        gone=tuple(key for key in keys if key not in seen.attributes),
    )


def _without_values(seen: GroupObserved) -> GroupObserved:
    """Return the observation of a group without the values that may agree."""
    return replace(seen, owner=None, custom_fields={}, is_full=None, **dict.fromkeys(TEXTS))


def _is_of_group(kind: str) -> bool:
    return kind in _OF_GROUP or kind.startswith("stale_profile.")


def _chosen(entries: dict[str, str], keys: Collection[str]) -> dict[str, str]:
    return {key: entries[key] for key in keys if key in entries}


def _chunks(users: Sequence[str]) -> Iterator[Sequence[str]]:
    return (users[start : start + _MEMBERS_AT_ONCE] for start in range(0, len(users), _MEMBERS_AT_ONCE))


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()
