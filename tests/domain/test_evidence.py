"""The evidence that the folds keep: the same in any order, never changed in place, and stored without loss."""

from __future__ import annotations

import json
from itertools import permutations
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.domain import fullness, lives, membership, profile
from projector.domain.events import (
    TYPES,
    AttributesChanged,
    Event,
    MembersJoined,
    MembersObserved,
    Observation,
    ObservedMember,
    ProfileFact,
    Recorded,
    UndecodableEvent,
)
from projector.domain.fullness import Fullness
from projector.domain.lives import FOREVER, NEVER, Lives, Moment, Register
from projector.domain.membership import AWAITING, MEMBER, OUT, Member, Standing
from projector.domain.profile import Profile
from projector.read_model.evidence import decode_group, decode_member, decode_snapshot, decode_texts, encode
from projector.read_model.rows import GroupEvidence, GroupSnapshot
from tests.domain import facts as f
from tests.domain.facts import GROUP
from tests.domain.strategies import any_event, any_history, deliveries

if TYPE_CHECKING:
    from collections.abc import Iterable


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_the_evidence_itself_is_the_same_in_any_order_and_not_only_what_it_shows(data: st.DataObject) -> None:
    history = [recorded for recorded in data.draw(any_history) if recorded.event.group_id == GROUP]
    arrival = data.draw(deliveries(history))
    assert evidence(arrival) == evidence(history)


def test_an_older_observation_that_arrives_late_leaves_the_same_evidence() -> None:
    older, newer = (
        MembersObserved(group_id=GROUP, occurred_at=at, recorded_at=at, members={"ann": ObservedMember(1, role)})
        for at, role in ((1_000, "Admin"), (2_000, None))
    )
    first, second = Recorded(1, older, 1), Recorded(2, newer, 2)
    assert evidence([first, second]) == evidence([second, first])


EVENT_TYPES = (Event, ProfileFact, Observation, *TYPES.values(), UndecodableEvent)

Evidence: TypeAlias = tuple[Lives, Profile, Fullness, dict[str, Member]]


def evidence(history: Iterable[Recorded]) -> Evidence:
    group_lives, known, full, people = Lives(), Profile(), Fullness(), {}
    for recorded in history:
        group_lives = lives.evolve(group_lives, recorded)
        known = profile.evolve(known, recorded)
        full = fullness.evolve(full, recorded)
        for user in membership.users(recorded.event):
            people[user] = membership.evolve(user, people.get(user, Member()), recorded)
    return group_lives, known, full, people


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["create", "dismiss"]), max_size=60), st.randoms())
def test_a_group_created_over_and_over_keeps_no_more_than_its_last_lives(kinds: list[str], random: Any) -> None:
    history = f.recorded([f.created(at) if kind == "create" else f.dismissed(at) for at, kind in enumerate(kinds)])
    random.shuffle(history)
    known = Lives()
    for recorded in history:
        known = lives.evolve(known, recorded)
    tail = len(kinds) - (max((at for at, kind in enumerate(kinds) if kind == "create"), default=-1) + 1)
    assert len(known.dismissals) <= 1 + tail


def test_a_register_keeps_the_newest_value_and_reads_as_unknown_before_its_floor() -> None:
    register = Register().write((5, 1), "new").write((4, 9), "old").write((5, 1), "same moment")
    assert register == Register((5, 1), "new")
    assert register.since((5, 0)).value == "new"
    assert register.since((5, 1)) == Register()


def test_the_folds_leave_what_they_were_given_as_it_was() -> None:
    known = profile.evolve(Profile(), Recorded(1, f.profile(0, name="n", custom_fields={"k": "v"})))
    before = (dict(known.custom_fields), dict(known.attributes))
    profile.evolve(known, Recorded(2, f.profile(1, custom_fields={"k": "w", "l": "x"})))
    profile.evolve(known, Recorded(3, f.attributes(2, "set", a="1")))
    assert (known.custom_fields, known.attributes) == before


def evidence_in_any_order(*arrivals: Event) -> Evidence:
    """Return the evidence of these events, which must be the same in whatever order they are applied."""
    history = f.recorded(arrivals)
    expected = evidence(history)
    for order in permutations(history):
        assert evidence(order) == expected
        assert evidence([*order, *order]) == expected
    return expected


# --- lives -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["name", "introduction", "notification", "face_url", "owner", "group_type"])
def test_a_new_life_begins_without_the_fields_of_the_one_before(field: str) -> None:
    first, last, second = f.profile(1, **{field: "first"}), f.dismissed(2, **{field: "last"}), f.created(4)
    register = field.removeprefix("group_")
    _, ended, _, _ = evidence_in_any_order(f.created(0), first, last)
    assert getattr(ended, register) == Register(moment(2, 3), "last")
    _, begun, _, _ = evidence_in_any_order(first, last, second)
    assert getattr(begun, register) == Register()
    _, written, _, _ = evidence_in_any_order(first, last, f.profile(3, **{field: "early"}), second)
    assert getattr(written, register) == Register(moment(3, 3), "early")


def test_a_new_life_begins_without_the_custom_fields_of_the_one_before() -> None:
    first, last = f.profile(1, custom_fields={"a": "1", "b": "1"}), f.dismissed(2, custom_fields={"b": "2"})
    _, ended, _, _ = evidence_in_any_order(first, last)
    assert profile.current(ended.custom_fields) == {"a": "1", "b": "2"}
    _, begun, _, _ = evidence_in_any_order(first, last, f.profile(3, custom_fields={"c": "3"}), f.created(4))
    assert begun.custom_fields == {"c": Register(moment(3, 3), "3")}


def test_attributes_written_before_the_creation_of_their_life_arrives_are_kept() -> None:
    old, new = f.attributes(1, "set", a="1", b="1"), f.attributes(3, "modify", b="3")
    _, known, _, _ = evidence_in_any_order(old, f.dismissed(2), new, f.created(4))
    assert known.attributes == {"b": Register(moment(3, 3), "3")}
    assert known.attributes_reset == NEVER


def test_a_set_before_the_creation_of_its_life_arrives_still_replaces_what_is_older() -> None:
    late, whole = f.attributes(3, "modify", a="3", b="3"), f.attributes(4, "set", b="4")
    _, known, _, _ = evidence_in_any_order(f.dismissed(2), late, whole, f.created(5))
    assert known.attributes == {"b": Register(moment(4, 3), "4")}
    assert known.attributes_reset == moment(4, 3)


def test_nothing_remains_of_a_set_in_an_earlier_life() -> None:
    _, known, _, _ = evidence_in_any_order(f.attributes(1, "set", a="1"), f.dismissed(2), f.created(3))
    assert (known.attributes, known.attributes_reset) == ({}, NEVER)


def test_nothing_remains_of_the_keys_that_a_clear_names() -> None:
    _, known, _, _ = evidence_in_any_order(f.attributes(0, "set", a="1"), f.attributes(1, "clear", a="", b="2"))
    assert known.attributes == {}


def test_the_evidence_of_lives_is_the_newest_creation_and_the_dismissals_that_may_still_matter() -> None:
    life, _, _, _ = evidence_in_any_order(f.created(0), f.dismissed(1), f.dismissed(2), f.created(3), f.dismissed(4))
    assert life == Lives(moment(3, 4), (moment(2, 3), moment(4, 5)))


# --- membership ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("created", "joined", "standing"), [(1, 2, OUT), (1, 4, AWAITING), (5, 2, OUT), (5, 4, MEMBER), (5, 6, MEMBER)]
)
def test_whoever_joined_before_the_dismissal_is_out_and_after_it_a_member_once_there_is_a_creation(
    created: int, joined: int, standing: Standing
) -> None:
    group = Lives((created, created), ((3, 3),))
    assert membership.standing(Member(joined=(joined, joined)), group) is standing


def test_an_exit_or_a_join_that_arrives_late_does_not_take_the_place_of_a_newer_one() -> None:
    joins = (f.created(0, "ann"), f.joined(1, "ann", join_type="Invited"))
    exits = (f.left(2, "ann"), f.left(3, "ann"))
    _, _, _, people = evidence_in_any_order(*joins, *exits)
    assert people["ann"] == Member(joined=moment(1, 2), join_type="Invited", exited=moment(3, 4))
    _, _, _, people = evidence_in_any_order(f.left(0, "ann"), f.joined(1, "ann"), f.left(2, "ann"), f.created(3, "ann"))
    assert people["ann"] == Member(joined=moment(3, 4), join_type="Created", exited=moment(2, 3))


# --- stored and shared -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [Register, Lives, Profile, Fullness, Member, Recorded, *EVENT_TYPES])
def test_nothing_can_change_a_fact_or_evidence_nor_does_the_garbage_collector_track_it(known: Any) -> None:
    assert (known.__struct_config__.frozen, known.__struct_config__.gc) == (True, False)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_no_event_is_stored_with_the_fields_that_it_leaves_open(event_type: Any) -> None:
    assert event_type.__struct_config__.omit_defaults


def test_the_names_under_which_events_are_stored_never_change() -> None:
    assert {event_type.__name__: event_type.TOPIC for event_type in (*TYPES.values(), UndecodableEvent)} == {
        "GroupCreated": "GroupCreated",
        "MembersJoined": "MembersJoined",
        "MembersLeft": "MembersLeft",
        "GroupFilled": "GroupFilled",
        "GroupProfileChanged": "GroupProfileChanged",
        "GroupDismissed": "GroupDismissed",
        "MemberChanged": "MemberChanged",
        "OwnerChanged": "OwnerChanged",
        "AttributesChanged": "AttributesChanged",
        "GroupObserved": "GroupObserved",
        "MembersObserved": "MembersObserved",
        "MembersObservedAbsent": "MembersObservedAbsent",
        "AttributesObserved": "AttributesObserved",
        "GroupObservedAbsent": "GroupObservedAbsent",
        "RosterObserved": "RosterObserved",
        "TopicCreated": "TopicCreated",
        "TopicsDismissed": "TopicsDismissed",
        "TopicProfileChanged": "TopicProfileChanged",
        "UndecodableEvent": "Undecodable",
    }
    assert all(TYPES[event_type.TOPIC] is event_type for event_type in TYPES.values())


@settings(deadline=None, max_examples=200)
@given(any_event)
def test_a_stored_event_is_read_back_the_same(event: Event) -> None:
    stored = msgspec.json.encode(event)
    assert msgspec.json.decode(stored, type=type(event)) == event


@pytest.mark.parametrize("operation", ["set", "modify", "clear", "delete"])
def test_every_operation_on_attributes_is_read_back_the_same(operation: str) -> None:
    event = f.attributes(0, operation, a="1")
    assert msgspec.json.decode(msgspec.json.encode(event), type=AttributesChanged) == event


@pytest.mark.parametrize("join_type", ["Apply", "Invited", None])
def test_every_way_to_join_is_read_back_the_same(join_type: str | None) -> None:
    event = f.joined(0, "ann", join_type=join_type)
    assert msgspec.json.decode(msgspec.json.encode(event), type=MembersJoined) == event


def test_an_event_without_a_body_has_an_empty_one_and_a_version_of_zero_until_it_is_known() -> None:
    recorded = Recorded(1, f.created(0))
    assert (json.loads(recorded.event.callback), recorded.version) == ({}, 0)


@settings(deadline=None, max_examples=200)
@given(any_history)
def test_stored_evidence_is_read_back_the_same(history: list[Recorded]) -> None:
    life, known, full, people = evidence(recorded for recorded in history if recorded.event.group_id == GROUP)
    assert known.lives == life
    row = GroupEvidence(profile.brief(known), full, (5, 7), (1, 2, 3, 4, 5))
    assert decode_group(encode(row)) == row
    assert profile.whole(row.profile, decode_texts(encode(profile.texts(known)))) == known
    snapshot = GroupSnapshot(512, 900, 3, known, full)
    assert decode_snapshot(encode(snapshot)) == snapshot
    assert {user: decode_member(encode(member)) for user, member in people.items()} == people


@settings(deadline=None, max_examples=50)
@given(any_history)
def test_a_profile_is_its_brief_part_and_its_texts_and_neither_has_anything_of_the_other(
    history: list[Recorded],
) -> None:
    known = evidence(history)[1]
    assert profile.whole(profile.brief(known), profile.texts(known)) == known
    assert profile.brief(profile.texts(known)) == profile.texts(profile.brief(known)) == Profile()


def test_the_moment_after_every_event_fits_into_a_database() -> None:
    assert FOREVER == (2**63 - 1, 2**63 - 1)


def test_lives_stored_without_a_creation_have_none() -> None:
    assert not decode_texts('{"lives":{"created":[0,0]}}').lives.roster_complete
    assert decode_texts('{"lives":{"created":[0,1]}}').lives.roster_complete


def test_what_is_not_known_takes_no_room_in_the_store() -> None:
    assert [encode(unknown()) for unknown in (Lives, Profile, Fullness, Member, GroupEvidence)] == ["{}"] * 5
    assert encode(Register()) == "[[0,0],null]"
    for event in (f.created(0), f.joined(0, "ann"), f.left(0, "ann"), f.filled(0), f.profile(0), f.dismissed(0)):
        assert stored_fields(event) <= {"group_id", "occurred_at", "recorded_at", "members"}
    assert stored_fields(f.changed(0, "ann")) == {"group_id", "occurred_at", "recorded_at", "member"}
    assert stored_fields(f.owned(0, "ann")) == {"group_id", "occurred_at", "recorded_at", "owner"}
    assert stored_fields(f.attributes(0, "clear")) == {"group_id", "occurred_at", "recorded_at", "operation"}
    for event in (f.topic_created(0), f.topics_dismissed(0), f.topic_changed(0)):
        assert stored_fields(event) == {"group_id", "occurred_at", "recorded_at"}


def stored_fields(event: Event) -> set[str]:
    return set(json.loads(msgspec.json.encode(event)))


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_field_of_an_event_is_given_by_name(event_type: type[Event]) -> None:
    required = [field.name for field in msgspec.structs.fields(event_type) if field.required]
    for field in msgspec.structs.fields(event_type):
        with pytest.raises(TypeError):
            event_type("positional", **{name: "named" for name in required if name != field.name})


def moment(at: int, position: int) -> Moment:
    return (f.EPOCH + at, position)
