"""Short constructors of events, so that examples are easy to read. Times are in ms after `EPOCH`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from projector.domain import events
from projector.domain.events import Event, Recorded
from tests.oracle import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

EPOCH = 1_670_574_414_000
"""The start of all histories, in ms."""

GROUP = "@TGS#1"


def _fact(event_type: type[Event], at: int, **fields: Any) -> Event:
    return event_type(**{"group_id": GROUP, "occurred_at": EPOCH + at, "recorded_at": EPOCH + 10_000, **fields})


def created(at: int, *members: str, owner: str | None = None, **fields: Any) -> Event:
    return _fact(events.GroupCreated, at, members=members, owner=owner, **fields)


def joined(at: int, *members: str, **fields: Any) -> Event:
    return _fact(events.MembersJoined, at, members=members, **fields)


def left(at: int, *members: str, **fields: Any) -> Event:
    return _fact(events.MembersLeft, at, members=members, **fields)


def filled(at: int, **fields: Any) -> Event:
    return _fact(events.GroupFilled, at, **fields)


def profile(at: int, **fields: Any) -> Event:
    return _fact(events.GroupProfileChanged, at, **fields)


def dismissed(at: int, **fields: Any) -> Event:
    return _fact(events.GroupDismissed, at, **fields)


def changed(at: int, member: str, **fields: Any) -> Event:
    return _fact(events.MemberChanged, at, member=member, **fields)


def owned(at: int, owner: str, **fields: Any) -> Event:
    return _fact(events.OwnerChanged, at, owner=owner, **fields)


def attributes(at: int, operation: str, **values: str) -> Event:
    return _fact(events.AttributesChanged, at, operation=operation, attributes=values)


def group_seen(at: int, **fields: Any) -> Event:
    return _fact(events.GroupObserved, at, **fields)


def members_seen(at: int, *members: str, since: int | None = None, **fields: Any) -> Event:
    seen = events.ObservedMember(EPOCH + (at if since is None else since), **fields)
    return _fact(events.MembersObserved, at, members=dict.fromkeys(members, seen))


def members_absent(at: int, *members: str) -> Event:
    return _fact(events.MembersObservedAbsent, at, members=members)


def attributes_seen(at: int, *gone: str, **values: str) -> Event:
    return _fact(events.AttributesObserved, at, attributes=values, gone=gone)


def group_absent(at: int) -> Event:
    return _fact(events.GroupObservedAbsent, at)


def roster_seen(at: int) -> Event:
    return _fact(events.RosterObserved, at)


def topic_created(at: int, **fields: Any) -> Event:
    return _fact(events.TopicCreated, at, **fields)


def topics_dismissed(at: int, **fields: Any) -> Event:
    return _fact(events.TopicsDismissed, at, **fields)


def topic_changed(at: int, **fields: Any) -> Event:
    return _fact(events.TopicProfileChanged, at, **fields)


def recorded(arrivals: Sequence[Event], *, after: int = 0) -> list[Recorded]:
    """Number events: positions in the order of arrival, versions within their groups."""
    versions: Counter[str] = Counter()
    history = []
    for position, event in enumerate(arrivals, start=after + 1):
        versions[event.group_id] += 1
        history.append(Recorded(position, event, versions[event.group_id]))
    return history


def time(at: int) -> str | None:
    return rfc3339(EPOCH + at)
