"""Observed and reported evidence: the newer decides, in whatever order the two arrive."""

from __future__ import annotations

import pytest

from projector.domain import events
from projector.domain.redaction import mentioned, redact
from tests.domain import facts as f
from tests.domain.facts import time
from tests.domain.test_folds import Outcome, after, after_in_any_order

# --- members ---------------------------------------------------------------------------------------------------------


def test_a_member_whose_join_was_lost_is_one_by_observation() -> None:
    outcome = after_in_any_order(
        f.created(0, owner="ann"), f.members_seen(5000, "bob", since=1000, role="Admin", name_card="Bob")
    )
    assert outcome.members["bob"] == {
        "user_id": "bob",
        "role": "Admin",
        "name_card": "Bob",
        "joined_at": time(1000),
        "join_type": None,
        "operator": None,
    }


def test_the_join_that_arrives_after_all_tells_the_type_and_the_milliseconds() -> None:
    outcome = after_in_any_order(
        f.created(0, owner="ann"),
        f.members_seen(5000, "bob", since=1000, role="Admin"),
        f.joined(1234, "bob", join_type="Apply", operator="bob"),
    )
    bob = outcome.members["bob"]
    assert (bob["joined_at"], bob["join_type"], bob["operator"]) == (time(1234), "Apply", "bob")
    assert bob["role"] == "Admin"


def test_a_join_reported_a_little_before_the_observed_time_of_joining_is_the_same_stint() -> None:
    outcome = after(f.joined(500, "bob", join_type="Apply"), f.members_seen(50_000, "bob", since=10_500))
    assert (outcome.members["bob"]["joined_at"], outcome.members["bob"]["join_type"]) == (time(10_500), "Apply")


def test_a_rejoin_that_was_lost_with_the_exit_before_it_begins_a_stint_of_its_own() -> None:
    outcome = after_in_any_order(
        f.joined(0, "bob", join_type="Apply"),
        f.changed(1, "bob", role="Admin", name_card="old"),
        f.members_seen(90_000, "bob", since=60_000),
    )
    bob = outcome.members["bob"]
    assert (bob["joined_at"], bob["join_type"]) == (time(60_000), None)
    assert (bob["role"], bob["name_card"]) == ("Member", None)


def test_an_observed_absence_ends_a_membership_and_a_join_before_it_does_not_bring_it_back() -> None:
    outcome = after_in_any_order(
        f.created(0, "bob", owner="ann"), f.members_absent(5, "bob"), f.joined(4, "bob"), f.joined(3, "cyd")
    )
    assert outcome.roster == ["ann", "cyd"]


@pytest.mark.parametrize("at", [5, 6])
def test_a_callback_at_the_moment_of_an_observation_or_later_is_newer(at: int) -> None:
    assert after_in_any_order(f.members_absent(5, "bob"), f.joined(at, "bob")).roster == ["bob"]
    assert after_in_any_order(f.members_seen(5, "bob"), f.left(at, "bob")).roster == []
    named = after_in_any_order(f.group_seen(5, name="seen"), f.profile(at, name="reported"))
    assert named.group["name"] == "reported"
    ended = after_in_any_order(f.group_seen(5), f.dismissed(at))
    assert ended.group["status"] == "dismissed"


def test_a_callback_before_an_observation_is_older() -> None:
    assert after_in_any_order(f.members_absent(5, "bob"), f.joined(4, "bob")).roster == []
    assert after_in_any_order(f.members_seen(5, "bob"), f.left(4, "bob")).roster == ["bob"]
    assert after_in_any_order(f.group_seen(5, name="seen"), f.profile(4, name="reported")).group["name"] == "seen"
    assert after_in_any_order(f.group_seen(5), f.dismissed(4)).group["status"] == "active"


def test_an_exit_and_a_rejoin_within_a_second_are_a_member_since_that_second() -> None:
    outcome = after_in_any_order(f.joined(100, "bob"), f.left(1500, "bob"), f.members_seen(5000, "bob", since=1000))
    assert outcome.members["bob"]["joined_at"] == time(1000)


def test_changes_reported_before_an_observation_do_not_change_what_it_showed() -> None:
    outcome = after_in_any_order(
        f.joined(0, "bob"),
        f.members_seen(5, "bob", since=0, role="Admin", name_card="new"),
        f.changed(4, "bob", role="Member", name_card="old"),
        f.changed(6, "bob", name_card="newest"),
    )
    assert (outcome.members["bob"]["role"], outcome.members["bob"]["name_card"]) == ("Admin", "newest")


def test_the_owner_who_is_observed_absent_is_no_owner_any_more() -> None:
    assert after_in_any_order(f.created(0, owner="ann"), f.members_absent(1, "ann")).shows(owner=None)


# --- groups ----------------------------------------------------------------------------------------------------------


def test_an_observed_group_has_a_life_from_its_creation_on() -> None:
    outcome = after_in_any_order(
        f.group_seen(5000, name="n", owner="ann", created_at=f.EPOCH - 7000, member_limit=200, is_full=False),
        f.members_seen(5000, "ann", since=-7000),
        f.roster_seen(5000),
    )
    assert outcome.shows(
        status="active", created_at=time(-7000), member_limit=200, roster_complete=True, member_count=1, is_full=False
    )
    assert outcome.members["ann"]["role"] == "Owner"


def test_the_creation_that_arrives_after_all_is_the_same_life() -> None:
    outcome = after_in_any_order(
        f.group_seen(5000, created_at=f.EPOCH + 1000), f.members_seen(5000, "ann", since=1000), f.created(1234, "ann")
    )
    assert outcome.shows(created_at=time(1234), roster_complete=True)
    assert outcome.members["ann"]["join_type"] == "Created"


def test_a_group_observed_after_its_dismissal_begins_a_new_life_whatever_its_creation_time() -> None:
    outcome = after_in_any_order(
        f.created(0, "ann", "bob", name="old"), f.dismissed(1), f.group_seen(5, created_at=f.EPOCH - 9)
    )
    assert outcome.shows(status="active", name=None, member_count=0, roster_complete=False, created_at=time(-9))


def test_what_was_observed_after_a_dismissal_that_arrives_late_stays() -> None:
    outcome = after_in_any_order(
        f.created(0, "ann", name="old"), f.group_seen(5, name="new"), f.members_seen(5, "bob"), f.dismissed(4)
    )
    assert outcome.shows(status="active", name="new")
    assert outcome.roster == ["bob"]


def test_a_group_observed_absent_is_dismissed_by_then_or_when_the_callback_says() -> None:
    assert after_in_any_order(f.created(0, "ann"), f.group_absent(5), f.group_absent(9)).shows(
        status="dismissed", dismissed_at=time(5), member_count=0
    )
    assert after_in_any_order(f.created(0), f.group_absent(5), f.dismissed(3)).shows(dismissed_at=time(3))
    assert after_in_any_order(f.created(0), f.group_absent(5), f.created(6, "ann")).shows(status="active")


def test_an_observed_limit_is_the_limit_of_its_life_only() -> None:
    limited = (f.created(0, "ann"), f.group_seen(1, member_limit=200), f.group_seen(2, name="n"))
    assert after_in_any_order(*limited).shows(member_limit=200)
    assert after_in_any_order(*limited, f.dismissed(3)).shows(member_limit=None)
    assert after(*limited, f.dismissed(3), f.created(4, "ann")).shows(member_limit=None)


def test_a_group_is_full_as_the_newest_of_reports_exits_and_observations_says() -> None:
    assert after_in_any_order(f.created(0, "ann"), f.group_seen(5, is_full=True)).shows(is_full=True, full_at=time(5))
    assert after_in_any_order(f.created(0), f.filled(4), f.group_seen(5, is_full=False)).shows(is_full=False)
    assert after_in_any_order(f.created(0), f.filled(6), f.group_seen(5, is_full=False)).shows(is_full=True)
    assert after_in_any_order(f.created(0), f.filled(4), f.members_absent(5, "bob")).shows(is_full=True)


def test_a_whole_roster_observed_in_an_earlier_life_says_nothing_about_this_one() -> None:
    outcome = after_in_any_order(f.roster_seen(0), f.dismissed(1), f.group_seen(2))
    assert outcome.shows(roster_complete=False)


def test_custom_fields_and_attributes_that_are_gone_are_deleted() -> None:
    outcome = after_in_any_order(
        f.created(0, custom_fields={"a": "1", "b": "2"}),
        f.attributes(1, "set", c="3", d="4"),
        f.group_seen(2, custom_fields={"b": "5"}, custom_fields_gone=("a",)),
        f.attributes_seen(2, "c", d="6"),
    )
    assert outcome.shows(custom_fields={"b": "5"}, attributes={"d": "6"})


# --- stored ----------------------------------------------------------------------------------------------------------


def test_observations_of_forgotten_users_name_the_pseudonym_and_nothing_else_changes() -> None:
    seen = events.MembersObserved(
        group_id="alice",
        occurred_at=1,
        recorded_at=1,
        members={"alice": events.ObservedMember(5, None, "card of alice"), "bob": events.ObservedMember(6, "Admin")},
        callback='{"MemberList":[{"JoinTime":5,"Member_Account":"alice","MsgFlag":"alice","Role":"Member"}]}',
    )
    redacted = redact(seen, {"alice": "forgotten-1"})
    assert redacted.members == {
        "forgotten-1": events.ObservedMember(5, None, "card of forgotten-1"),
        "bob": events.ObservedMember(6, "Admin"),
    }
    assert redacted.callback == (
        '{"MemberList":[{"JoinTime":5,"Member_Account":"forgotten-1","MsgFlag":"alice","Role":"Member"}]}'
    )
    assert {"alice", "bob"} <= mentioned(seen)
    gone = f.members_absent(0, "alice", "bob")
    assert redact(gone, {"alice": "forgotten-1"}).members == ("forgotten-1", "bob")
    values = events.AttributesObserved(
        group_id="g", occurred_at=1, recorded_at=1, attributes={"seat": "alice"}, gone=("alice", "b")
    )
    assert redact(values, {"alice": "f"}).attributes == {"seat": "f"}
    assert redact(values, {"alice": "f"}).gone == ("f", "b")


def test_before_an_observation_a_group_is_as_it_was_known_to_be() -> None:
    history = (f.created(0, "ann"), f.members_seen(5000, "bob", since=1000), f.members_absent(5000, "ann"))
    before = after(*(event for event in history if event.occurred_at < f.EPOCH + 5000))
    assert before.roster == ["ann"]
    assert Outcome(*after(*history)).roster == ["bob"]
