"""The rules of group state: examples, and properties that hold for any order and any repetition of events."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.domain import membership
from projector.domain.events import GroupCreated, Recorded
from projector.domain.lives import Register
from projector.domain.membership import Member
from tests import oracle, shown
from tests.domain import facts as f
from tests.domain.facts import GROUP, time
from tests.domain.strategies import any_history, deliveries, histories_with_ties
from tests.processes.campaign import rounds

if TYPE_CHECKING:
    from projector.domain.events import Event


class Outcome(NamedTuple):
    group: dict[str, Any]
    members: dict[str, dict[str, Any]]

    @property
    def roster(self) -> list[str]:
        return list(self.members)

    def shows(self, **expected: Any) -> bool:
        assert {field: self.group[field] for field in expected} == expected
        return True


def after(*arrivals: Event) -> Outcome:
    """Return the group after events arrived in this order; the folds and the oracle must agree."""
    history = f.recorded(arrivals)
    state = shown.folded(history)
    assert state == oracle.everything(oracle.facts(history))
    return Outcome(*state[GROUP])


def after_in_any_order(*events: Event) -> Outcome:
    """Return the group; check that every order of arrival leads to the same state.

    The times of the events must be distinct, so that positions decide nothing but the field `position`.
    """
    outcomes = [after(*arrivals) for arrivals in permutations(events)]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return outcomes[0]


# --- every order, every repetition -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=rounds(300))
@given(st.data())
def test_any_order_with_any_repetition_leads_to_what_the_oracle_says(data: st.DataObject) -> None:
    history = data.draw(any_history)
    expected = oracle.everything(oracle.facts(history))
    assert shown.folded(history) == expected
    assert shown.folded(data.draw(deliveries(history))) == expected


@settings(deadline=None, max_examples=100)
@given(any_history)
def test_a_history_applied_twice_is_the_history_applied_once(history: list[Recorded]) -> None:
    assert shown.folded([*history, *history]) == shown.folded(history)


@settings(deadline=None, max_examples=100)
@given(histories_with_ties())
def test_a_member_is_one_whom_nothing_newer_than_the_join_sent_away(history: list[Recorded]) -> None:
    for group, members in shown.folded(history).values():
        assert group["member_count"] == len(members)
        assert not (group["status"] == "dismissed" and (members or group["is_full"] or group["full_at"]))
        if all(recorded.event.SOURCE == "callback" for recorded in history):
            assert group["member_limit"] in (None, group["member_count"])
            assert (group["created_at"] is None) == (not group["roster_complete"])
        assert (group["dismissed_at"] is None) == (group["status"] == "active")
        owners = [user for user, member in members.items() if member["role"] == "Owner"]
        assert owners in ([], [group["owner"]])


# --- roster ----------------------------------------------------------------------------------------------------------


def test_creation_joins_the_listed_members_and_an_owner_who_is_not_listed() -> None:
    outcome = after(f.created(0, "bob", "peter", owner="leckie", operator="group_root"))
    assert outcome.members == {
        user: {
            "user_id": user,
            "role": role,
            "name_card": None,
            "joined_at": time(0),
            "join_type": "Created",
            "operator": "group_root",
        }
        for user, role in [("bob", "Member"), ("leckie", "Owner"), ("peter", "Member")]
    }


def test_an_owner_who_is_listed_too_is_one_member() -> None:
    outcome = after(f.created(0, "ann", "ann", owner="ann"))
    assert outcome.shows(member_count=1, owner="ann")


def test_a_creation_without_members_or_owner_is_an_empty_and_complete_roster() -> None:
    assert after(f.created(0)).shows(member_count=0, roster_complete=True, owner=None)
    assert after(f.created(0, owner="")).shows(member_count=0, roster_complete=True, owner=None)


def test_an_exit_removes_the_listed_and_never_the_operator() -> None:
    outcome = after_in_any_order(
        f.created(0, "jared", "tommy", owner="leckie"), f.left(1, "jared", "tommy", operator="leckie")
    )
    assert outcome.roster == ["leckie"]


def test_an_exit_that_arrives_before_its_join_still_ends_it() -> None:
    outcome = after_in_any_order(f.created(0, owner="ann"), f.joined(1, "bob"), f.left(2, "bob"))
    assert outcome.roster == ["ann"]


def test_a_join_after_an_exit_is_a_membership_of_its_own() -> None:
    outcome = after_in_any_order(
        f.joined(0, "bob", join_type="Invited", operator="ann"),
        f.left(1, "bob"),
        f.joined(2, "bob", join_type="Apply", operator="bob"),
    )
    assert outcome.members["bob"] == {
        "user_id": "bob",
        "role": "Member",
        "name_card": None,
        "joined_at": time(2),
        "join_type": "Apply",
        "operator": "bob",
    }


def test_a_second_join_without_an_exit_between_is_the_newer_evidence() -> None:
    outcome = after_in_any_order(
        f.joined(0, "bob", join_type="Invited", operator="ann"), f.joined(1, "bob", join_type=None, operator=None)
    )
    assert outcome.members["bob"]["joined_at"] == time(1)
    assert outcome.members["bob"]["join_type"] is None
    assert outcome.members["bob"]["operator"] is None


def test_a_batch_kick_removes_those_who_are_there_and_remembers_those_who_are_not_yet() -> None:
    outcome = after(
        f.created(0, "ann", "bob"),
        f.left(5, "bob", "stranger", "late"),
        f.joined(4, "late"),
        f.joined(6, "stranger"),
    )
    assert outcome.roster == ["ann", "stranger"]


def test_repeated_joins_and_exits_never_drift_the_count() -> None:
    join, leave = f.joined(1, "bob"), f.left(2, "cyd")
    outcome = after(f.created(0, "ann"), join, join, join, leave, leave)
    assert outcome.shows(member_count=2)
    assert outcome.roster == ["ann", "bob"]


def test_one_user_named_twice_in_one_list_joins_once() -> None:
    assert after(f.joined(0, "bob", "bob")).shows(member_count=1)


def test_a_user_named_twice_is_evidence_once_and_in_the_order_of_the_list() -> None:
    for event in (f.joined(0, "bob", "ann", "bob"), f.left(0, "bob", "ann", "ann"), f.created(0, "bob", owner="ann")):
        assert list(membership.users(event)) == ["bob", "ann"]
    assert list(membership.users(f.joined(0, "bob", "bob"))) == ["bob"]
    assert list(membership.users(f.changed(0, "bob"))) == list(membership.users(f.joined(0, "bob"))) == ["bob"]


def test_empty_lists_change_nobody() -> None:
    outcome = after(f.created(0, "ann"), f.joined(1), f.left(2))
    assert outcome.roster == ["ann"]


def test_at_the_same_millisecond_what_was_recorded_later_is_newer() -> None:
    assert after(f.joined(7, "bob"), f.left(7, "bob")).roster == []
    assert after(f.left(7, "bob"), f.joined(7, "bob")).roster == ["bob"]
    assert after(f.dismissed(7), f.created(7, "bob")).roster == ["bob"]
    assert after(f.created(7, "bob"), f.dismissed(7)).roster == []


# --- profile ---------------------------------------------------------------------------------------------------------


def test_a_partial_change_leaves_what_it_does_not_name() -> None:
    outcome = after_in_any_order(
        f.created(0, name="first", group_type="Public"),
        f.profile(1, introduction="hello", custom_fields={"a": "1"}),
        f.profile(2, name="second", custom_fields={"b": "2"}),
    )
    assert outcome.shows(name="second", introduction="hello", custom_fields={"a": "1", "b": "2"}, type="Public")


@pytest.mark.parametrize("field", ["name", "introduction", "notification", "face_url"])
def test_an_empty_string_clears_and_absence_does_not(field: str) -> None:
    assert after(f.profile(0, **{field: "text"}), f.profile(1)).shows(**{field: "text"})
    assert after(f.profile(0, **{field: "text"}), f.profile(1, **{field: ""})).shows(**{field: ""})
    assert after(f.created(0)).shows(**{field: None})


def test_empty_custom_fields_and_attributes_are_shown_as_empty() -> None:
    outcome = after(f.profile(0, custom_fields={"k": ""}), f.attributes(1, "modify", k=""))
    assert outcome.shows(custom_fields={"k": ""}, attributes={"k": ""})


def test_an_older_value_that_arrives_late_loses() -> None:
    outcome = after(f.profile(5, name="new", custom_fields={"k": "new"}), f.created(1, name="old"))
    assert outcome.shows(name="new", custom_fields={"k": "new"})
    assert after(f.profile(5, custom_fields={"k": "new"}), f.profile(4, custom_fields={"k": "old"})).shows(
        custom_fields={"k": "new"}
    )


def test_every_callback_that_carries_a_type_tells_it() -> None:
    assert after(f.joined(0, "ann", group_type="Private")).shows(type="Private")
    assert after_in_any_order(f.joined(0, "ann", group_type="Private"), f.left(1, group_type="Public")).shows(
        type="Public"
    )
    assert after(f.filled(0)).shows(type=None)


def test_updated_at_and_position_are_the_newest_of_all_that_speaks_of_the_group() -> None:
    outcome = after(f.profile(9, name="x"), f.joined(3, "ann"), f.filled(20, topic_id="t"))
    assert outcome.shows(updated_at=time(9), position=2)


def test_set_replaces_all_attributes_modify_merges_delete_removes_keys_clear_removes_all() -> None:
    setting, merging = f.attributes(0, "set", a="1", b="2"), f.attributes(1, "modify", b="3", c="4")
    removing, clearing = f.attributes(2, "delete", a="", z=""), f.attributes(3, "clear")
    again = f.attributes(4, "set", d="5")
    assert after_in_any_order(setting, merging).shows(attributes={"a": "1", "b": "3", "c": "4"})
    assert after_in_any_order(setting, merging, removing).shows(attributes={"b": "3", "c": "4"})
    assert after_in_any_order(setting, merging, removing, clearing).shows(attributes={})
    assert after_in_any_order(setting, merging, clearing, again).shows(attributes={"d": "5"})


def test_a_deleted_attribute_may_be_written_again_and_a_late_write_before_the_deletion_may_not() -> None:
    removing = f.attributes(5, "delete", a="")
    assert after_in_any_order(removing, f.attributes(6, "modify", a="new")).shows(attributes={"a": "new"})
    assert after_in_any_order(removing, f.attributes(4, "modify", a="old")).shows(attributes={})


def test_a_clear_that_names_attributes_writes_none_of_them() -> None:
    assert after(f.attributes(0, "set", a="1"), f.attributes(1, "clear", b="2")).shows(attributes={})


# --- full ------------------------------------------------------------------------------------------------------------


def test_a_full_group_is_full_until_someone_leaves() -> None:
    full = (f.created(0, "ann", "bob"), f.filled(5))
    assert after_in_any_order(*full).shows(is_full=True, full_at=time(5), member_limit=2)
    assert after_in_any_order(*full, f.left(6, "bob")).shows(is_full=False, full_at=time(5), member_limit=None)


def test_an_older_exit_that_arrives_late_makes_no_room() -> None:
    outcome = after(f.created(0, "ann", "bob"), f.filled(5), f.left(4, "bob"))
    assert outcome.shows(is_full=True, member_count=1, member_limit=1)


def test_even_the_exit_of_an_unknown_user_makes_room_and_an_exit_of_nobody_does_not() -> None:
    assert after(f.created(0, "ann"), f.filled(5), f.left(6, "stranger")).shows(is_full=False)
    assert after(f.created(0, "ann"), f.filled(5), f.left(6)).shows(is_full=True)


def test_a_join_makes_no_room() -> None:
    assert after(f.created(0, "ann"), f.filled(5), f.joined(6, "bob")).shows(is_full=True, member_limit=2)


def test_a_repeated_full_counts_from_the_newest() -> None:
    outcome = after_in_any_order(f.created(0, "ann"), f.filled(3), f.filled(8))
    assert outcome.shows(is_full=True, full_at=time(8))
    assert after_in_any_order(f.filled(3), f.left(5, "bob"), f.filled(8)).shows(is_full=True, full_at=time(8))


def test_there_is_no_limit_while_the_roster_is_incomplete() -> None:
    assert after(f.joined(0, "ann"), f.filled(1)).shows(is_full=True, roster_complete=False, member_limit=None)
    assert after(f.joined(0, "ann"), f.filled(1), f.created(-5)).shows(member_limit=1)


def test_a_topic_that_is_full_says_nothing_of_its_group() -> None:
    assert after(f.created(0, "ann"), f.filled(5, topic_id="t")).shows(is_full=False, full_at=None, position=1)


# --- lives -----------------------------------------------------------------------------------------------------------


def test_a_dismissed_group_keeps_its_profile_and_has_no_members_and_is_not_full() -> None:
    outcome = after_in_any_order(
        f.created(0, "bob", owner="ann", name="n", group_type="Public"),
        f.profile(1, introduction="i", custom_fields={"k": "v"}),
        f.filled(2),
        f.dismissed(3),
    )
    assert outcome.members == {}
    assert outcome.shows(
        status="dismissed", dismissed_at=time(3), created_at=time(0), roster_complete=True, owner="ann", name="n",
        introduction="i", custom_fields={"k": "v"}, type="Public", member_count=0, is_full=False, full_at=None,
    )  # fmt: skip


def test_what_a_dismissal_names_is_the_last_profile() -> None:
    outcome = after_in_any_order(f.created(0, name="first", owner="ann"), f.dismissed(3, name="last", owner="bob"))
    assert outcome.shows(name="last", owner="bob")


def test_a_join_after_the_dismissal_does_not_open_a_new_life() -> None:
    outcome = after_in_any_order(f.created(0, "ann"), f.dismissed(5), f.joined(6, "bob"))
    assert outcome.shows(status="dismissed", member_count=0)


def test_only_a_creation_after_the_dismissal_opens_a_new_life_and_nothing_of_the_old_shows_in_it() -> None:
    outcome = after_in_any_order(
        f.created(0, "bob", owner="ann", name="old", group_type="Public", custom_fields={"k": "old"}),
        f.changed(1, "bob", role="Admin", name_card="Bobby"),
        f.attributes(2, "set", a="old"),
        f.filled(3),
        f.dismissed(4),
        f.created(5, "bob"),
    )
    assert outcome.members == {
        "bob": {
            "user_id": "bob",
            "role": "Member",
            "name_card": None,
            "joined_at": time(5),
            "join_type": "Created",
            "operator": None,
        }
    }
    assert outcome.shows(
        status="active", created_at=time(5), dismissed_at=None, name=None, type=None, owner=None, custom_fields={},
        attributes={}, is_full=False, full_at=None, member_count=1, roster_complete=True,
    )  # fmt: skip


def test_an_exit_of_the_old_life_that_arrives_late_takes_nobody_out_of_the_new_one() -> None:
    outcome = after(f.dismissed(4), f.created(5, "bob"), f.left(3, "bob"), f.filled(6), f.left(2, "bob"))
    assert outcome.roster == ["bob"]
    assert outcome.shows(is_full=True)


def test_a_dismissal_that_arrives_after_the_new_creation_ends_the_old_life_only() -> None:
    outcome = after(
        f.created(0, "ann", owner="ann", name="old"),
        f.profile(1, introduction="old"),
        f.created(5, "bob", name="new"),
        f.dismissed(4),
    )
    assert outcome.roster == ["bob"]
    assert outcome.shows(status="active", name="new", introduction=None, owner=None)


def test_a_dismissal_that_arrives_late_takes_out_those_who_joined_before_it() -> None:
    outcome = after(f.joined(1, "ann"), f.created(5, "bob"), f.joined(6, "cyd"), f.dismissed(4))
    assert outcome.roster == ["bob", "cyd"]


def test_members_who_joined_between_the_dismissal_and_a_late_creation_are_members_once_it_arrives() -> None:
    before = (f.created(0, "ann"), f.dismissed(4), f.joined(6, "bob"))
    assert after(*before).roster == []
    assert after(*before, f.created(5, "cyd")).roster == ["bob", "cyd"]


def test_a_fresh_dismissal_takes_everyone_out_again() -> None:
    outcome = after_in_any_order(
        f.created(0, "ann"), f.dismissed(2), f.created(3, "bob"), f.joined(4, "cyd"), f.dismissed(5)
    )
    assert outcome.members == {}
    assert outcome.shows(status="dismissed", dismissed_at=time(5), created_at=time(3))


def test_a_second_creation_without_a_dismissal_goes_on_with_the_same_life() -> None:
    outcome = after_in_any_order(f.created(0, "ann", name="n", introduction="i"), f.created(5, "bob", name="m"))
    assert outcome.roster == ["ann", "bob"]
    assert outcome.shows(name="m", introduction="i", created_at=time(5))


def test_between_two_dismissals_and_the_creation_the_newer_dismissal_is_the_floor() -> None:
    outcome = after_in_any_order(f.dismissed(1), f.profile(2, name="between"), f.dismissed(3), f.created(4, "ann"))
    assert outcome.shows(name=None, status="active")


def test_a_group_dismissed_twice_shows_what_was_written_since_its_life_began() -> None:
    outcome = after_in_any_order(
        f.created(0, name="n"), f.dismissed(2), f.profile(3, introduction="afterwards"), f.dismissed(4)
    )
    assert outcome.shows(name="n", introduction="afterwards", dismissed_at=time(4))


# --- late discovery --------------------------------------------------------------------------------------------------


def test_a_group_whose_creation_was_never_seen_builds_what_it_can() -> None:
    outcome = after_in_any_order(f.joined(1, "bob"), f.profile(2, name="n"))
    assert outcome.roster == ["bob"]
    assert outcome.shows(roster_complete=False, created_at=None, name="n", status="active")


def test_a_creation_that_arrives_late_completes_the_roster_and_overrides_nothing_newer() -> None:
    outcome = after(f.joined(5, "bob"), f.left(6, "cyd"), f.profile(7, name="new"), f.created(1, "cyd", name="old"))
    assert outcome.roster == ["bob"]
    assert outcome.shows(roster_complete=True, created_at=time(1), name="new")


def test_a_dismissal_of_an_unknown_group_is_all_that_is_known_of_it() -> None:
    outcome = after(f.dismissed(1, name="n", owner="ann", group_type="Public"))
    assert outcome.shows(status="dismissed", roster_complete=False, created_at=None, name="n", owner="ann")


def test_a_group_with_topic_events_only_is_unknown() -> None:
    history = f.recorded(
        [f.topic_created(0), f.topics_dismissed(1), f.topic_changed(2), f.joined(3, "ann", topic_id="t")]
    )
    assert shown.folded(history) == oracle.everything(oracle.facts(history)) == {}


def test_topics_change_nothing_of_a_known_group() -> None:
    plain = after(f.created(0, "ann", name="n"))
    with_topics = after(
        f.created(0, "ann", name="n"),
        f.topic_created(1, topic_id="t"),
        f.topic_changed(2),
        f.left(3, "ann", topic_id="t"),
        f.dismissed(4, topic_id="t"),
        f.profile(5, name="topic's", topic_id="t"),
    )
    assert with_topics == plain


# --- roles -----------------------------------------------------------------------------------------------------------


def test_the_owner_register_makes_an_owner_and_the_one_before_a_member() -> None:
    outcome = after_in_any_order(f.created(0, "bob", owner="ann"), f.owned(1, "bob", previous_owner="ann"))
    assert outcome.shows(owner="bob")
    assert {user: member["role"] for user, member in outcome.members.items()} == {"ann": "Member", "bob": "Owner"}


def test_a_user_id_read_from_elsewhere_than_the_owner_is_the_same_user() -> None:
    owner, user = Register((5, 1), "ann"), "".join(["a", "nn"])
    assert membership.role(user, Member(joined=(1, 1)), owner) == "Owner"
    assert membership.role(user, Member(joined=(7, 3), exited=(6, 2)), owner) == "Member"


def test_an_owner_who_exits_leaves_no_owner() -> None:
    outcome = after_in_any_order(f.created(0, "bob", owner="ann"), f.left(1, "ann"))
    assert outcome.shows(owner=None)
    assert outcome.roster == ["bob"]


def test_an_owner_who_exits_and_comes_back_is_owner_no_longer() -> None:
    outcome = after_in_any_order(f.created(0, owner="ann"), f.left(1, "ann"), f.joined(2, "ann"))
    assert outcome.shows(owner=None)
    assert outcome.members["ann"]["role"] == "Member"


def test_one_who_becomes_owner_after_an_earlier_exit_is_owner() -> None:
    outcome = after_in_any_order(f.left(1, "ann"), f.joined(2, "ann"), f.owned(3, "ann"))
    assert outcome.members["ann"]["role"] == "Owner"


def test_the_exit_of_an_earlier_owner_takes_nothing_from_the_present_one() -> None:
    outcome = after_in_any_order(f.created(0, "bob", owner="ann"), f.owned(1, "bob"), f.left(2, "ann"))
    assert outcome.shows(owner="bob")


def test_an_owner_who_is_not_a_member_is_shown_all_the_same() -> None:
    outcome = after(f.joined(0, "bob"), f.owned(1, "administrator"))
    assert outcome.shows(owner="administrator")
    assert outcome.members["bob"]["role"] == "Member"


def test_an_empty_new_owner_is_none() -> None:
    assert after_in_any_order(f.created(0, owner="ann"), f.owned(1, "")).shows(owner=None)


def test_an_admin_is_admin_until_the_role_changes_or_a_new_join() -> None:
    start = (f.created(0, "bob"), f.changed(1, "bob", role="Admin", name_card="Bobby"))
    assert after_in_any_order(*start).members["bob"]["role"] == "Admin"
    assert after_in_any_order(*start, f.changed(2, "bob", role="Member")).members["bob"]["role"] == "Member"
    again = after_in_any_order(*start, f.left(2, "bob"), f.joined(3, "bob")).members["bob"]
    assert (again["role"], again["name_card"]) == ("Member", None)


def test_role_and_name_card_change_apart_from_each_other() -> None:
    outcome = after_in_any_order(
        f.created(0, "bob"), f.changed(1, "bob", role="Admin"), f.changed(2, "bob", name_card="B")
    )
    assert outcome.members["bob"] | {"joined_at": None} == {
        "user_id": "bob",
        "role": "Admin",
        "name_card": "B",
        "joined_at": None,
        "join_type": "Created",
        "operator": None,
    }
    assert after(f.created(0, "bob"), f.changed(1, "bob", name_card="")).members["bob"]["name_card"] == ""


def test_a_role_set_before_the_join_that_arrived_is_forgotten_with_it() -> None:
    outcome = after_in_any_order(f.changed(1, "bob", role="Admin", name_card="B"), f.joined(2, "bob"))
    assert outcome.members["bob"]["role"] == "Member"
    assert outcome.members["bob"]["name_card"] is None


def test_a_change_of_one_who_never_joined_makes_no_member() -> None:
    assert after(f.changed(1, "bob", role="Admin")).roster == []


def test_an_admin_who_becomes_owner_is_owner_and_admin_again_when_another_takes_over() -> None:
    start = (f.created(0, "ann", "bob"), f.changed(1, "ann", role="Admin"), f.owned(2, "ann"))
    assert after_in_any_order(*start).members["ann"]["role"] == "Owner"
    assert after_in_any_order(*start, f.owned(3, "bob")).members["ann"]["role"] == "Admin"


# --- edge cases of the folds -----------------------------------------------------------------------------------------


def test_events_of_1970_are_newer_than_never() -> None:
    epoch = Recorded(1, GroupCreated(group_id=GROUP, occurred_at=0, recorded_at=0, members=("ann",), owner="ann"))
    state = shown.folded([epoch])
    assert state == oracle.everything(oracle.facts([epoch]))
    assert state[GROUP][0]["created_at"] == "1970-01-01T00:00:00.000Z"
    assert list(state[GROUP][1]) == ["ann"]
