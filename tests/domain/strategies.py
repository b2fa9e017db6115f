"""Histories of all kinds of events in any order, with few groups and few users, so that events often conflict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec.structs
from hypothesis import strategies as st

from projector.domain import events
from tests.domain.facts import EPOCH, recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

    from projector.domain.events import Event, Recorded

GROUPS = ("@TGS#1", "a/b %\u0000")
USERS = ("ann", "bob", "cyd")
KEYS = ("k1", "k2")

_group = st.sampled_from(GROUPS)
_user = st.sampled_from(USERS)
_users = st.lists(_user, max_size=3).map(tuple)
_small = ("", "x", "y", "\u0000\ufffd")
_sizes = (2_000, 2_048, 8_192)
"""The limits of values in bytes."""
_text = st.sampled_from(
    [*_small * 4, *("x" * size for size in _sizes), *("x" * (size + 1) for size in _sizes), "é" * 1_001]
)
_maybe_text = st.none() | _text
_type = st.sampled_from([None, "Public", "Private", "T" * 41])
_owner = st.sampled_from([None, "", *USERS])
_few = st.dictionaries(st.sampled_from([*KEYS, *KEYS, "k" * 64, "k" * 65, "k" * 1_025]), _text, max_size=2)
_many = st.builds(
    lambda first, count, text: {f"k{number}": text for number in range(first, first + count)},
    st.integers(0, 200),
    st.sampled_from([1, 90, 129, 161]),
    st.sampled_from(_small),
)
_values = st.one_of(_few, _few, _few, _many)
_profile = {
    "name": _maybe_text,
    "introduction": _maybe_text,
    "notification": _maybe_text,
    "face_url": _maybe_text,
    "owner": _owner,
    "custom_fields": _values,
}
_topic = st.sampled_from([None, None, None, None, "@TGS#1@TOPIC#t"])


def _of(event_type: type[Event], **fields: SearchStrategy[Any]) -> SearchStrategy[Event]:
    return st.builds(
        event_type,
        group_id=_group,
        occurred_at=st.just(EPOCH),
        recorded_at=st.just(EPOCH),
        group_type=_type,
        operator=st.sampled_from([None, "ann", "administrator", "é" * 513]),
        topic_id=_topic,
        **fields,
    )


created = _of(events.GroupCreated, members=_users, **_profile)
dismissed = _of(events.GroupDismissed, **_profile)
joined = _of(events.MembersJoined, members=_users, join_type=st.sampled_from([None, "Apply", "Invited"]))
left = _of(events.MembersLeft, members=_users, exit_type=st.sampled_from([None, "Kicked", "Quit"]))
filled = _of(events.GroupFilled)
profile_changed = _of(events.GroupProfileChanged, **_profile)
member_changed = _of(
    events.MemberChanged, member=_user, role=st.sampled_from([None, "Admin", "Member", ""]), name_card=_maybe_text
)
owner_changed = _of(events.OwnerChanged, owner=st.sampled_from(["", *USERS]), previous_owner=_owner)
attributes_changed = _of(
    events.AttributesChanged, operation=st.sampled_from(["set", "modify", "clear", "delete"]), attributes=_values
)
group_observed = _of(
    events.GroupObserved,
    **_profile,
    custom_fields_gone=st.lists(st.sampled_from(KEYS), max_size=2).map(tuple),
    created_at=st.none() | st.integers(EPOCH - 3, EPOCH + 20),
    member_limit=st.sampled_from([None, 2, 200]),
    is_full=st.sampled_from([None, True, False]),
)
_observed_member = st.builds(
    events.ObservedMember,
    joined_at=st.integers(EPOCH - 3, EPOCH + 20) | st.just(EPOCH + 11_000),
    role=st.sampled_from([None, "Admin", "Owner"]),
    name_card=_maybe_text,
)
members_observed = _of(events.MembersObserved, members=st.dictionaries(_user, _observed_member, max_size=2))
members_absent = _of(events.MembersObservedAbsent, members=_users)
attributes_observed = _of(
    events.AttributesObserved, attributes=_values, gone=st.lists(st.sampled_from(KEYS), max_size=2).map(tuple)
)
observed = st.one_of(
    members_observed,
    members_observed,
    members_absent,
    group_observed,
    group_observed,
    attributes_observed,
    _of(events.GroupObservedAbsent),
    _of(events.RosterObserved),
).map(lambda event: msgspec.structs.replace(event, topic_id=None))
of_topics = (
    _of(events.TopicCreated) | _of(events.TopicsDismissed, topic_ids=st.just(("t",))) | _of(events.TopicProfileChanged)
)

any_event = st.one_of(
    created,
    dismissed,
    joined,
    joined,
    left,
    filled,
    profile_changed,
    member_changed,
    owner_changed,
    attributes_changed,
    attributes_changed,
    of_topics,
    observed,
    observed,
    observed,
)
"""Simpler events come first, because failing examples shrink towards them."""


def _recorded(drawn: Sequence[Event], times: Sequence[int]) -> list[Recorded]:
    from msgspec.structs import replace

    return recorded(
        [
            replace(event, occurred_at=EPOCH + time, recorded_at=EPOCH + 60_000 + position)
            for position, (event, time) in enumerate(zip(drawn, times, strict=True), start=1)
        ]
    )


@st.composite
def histories(draw: st.DrawFn, *, max_size: int = 14) -> list[Recorded]:
    """Draw a history in order of position, each event at a different time."""
    drawn = draw(st.lists(any_event, max_size=max_size))
    return _recorded(drawn, draw(st.permutations(range(len(drawn)))))


@st.composite
def histories_with_ties(draw: st.DrawFn, *, max_size: int = 14) -> list[Recorded]:
    """Draw a history in order of position, in which many events share a millisecond."""
    drawn = draw(st.lists(any_event, max_size=max_size))
    return _recorded(drawn, [draw(st.integers(0, 3)) for _ in drawn])


any_history = histories() | histories_with_ties()


_crowd = st.fixed_dictionaries({}) | _many
_crowded_profile = {**_profile, "custom_fields": _crowd}
_crowding = st.one_of(
    _of(events.GroupProfileChanged, **_crowded_profile),
    _of(events.AttributesChanged, operation=st.sampled_from(["modify", "delete"]), attributes=_many),
    _of(events.AttributesChanged, operation=st.sampled_from(["modify", "delete"]), attributes=_many),
    _of(events.AttributesChanged, operation=st.sampled_from(["set", "clear"]), attributes=_many),
    _of(events.AttributesObserved, attributes=_many, gone=st.lists(st.sampled_from(["k1", "k90"])).map(tuple)),
    _of(events.GroupCreated, members=st.just(()), **_crowded_profile),
    _of(events.GroupDismissed, **_crowded_profile),
)


@st.composite
def crowded_histories(draw: st.DrawFn, *, max_size: int = 10) -> list[Recorded]:
    """Draw a history of writes to more keys than maps keep, and of deletions, in several lives."""
    drawn = draw(st.lists(_crowding, max_size=max_size))
    return _recorded(drawn, [draw(st.integers(0, 2 * max_size)) for _ in drawn])


@st.composite
def deliveries(draw: st.DrawFn, history: Sequence[Recorded]) -> list[Recorded]:
    """Draw an order of arrival: every event at least once, some of them again."""
    again = draw(st.lists(st.sampled_from(history), max_size=6)) if history else []
    return draw(st.permutations([*history, *again]))
