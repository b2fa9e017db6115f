"""Runs against the fake: what is found, corrected, left alone, and when a run stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from projector.reconciliation import rest_client
from projector.reconciliation.rest_errors import Unavailable
from projector.reconciliation.run import Unsafe, has_drift
from projector.simulator import commands
from tests.reconciliation.installation import Installation, installed
from tests.vendor import imported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from projector.event_store.reconciliations import RunReport

GROUP, COMMUNITY, LIVE = "@TGS#1", "@TGS#_@TGS#c", "@TGS#3"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as installation:
        yield installation


def counts(report: RunReport) -> dict[str, dict[str, int]]:
    from msgspec.structs import asdict

    return {
        kind: {name: value for name, value in asdict(kind_counts).items() if value}
        for kind, kind_counts in report.kinds.items()
    }


def agree(here: Installation) -> None:
    """Let time pass, reconcile to agreement, and check that another run finds nothing."""
    here.clock.pass_(5_000)
    here.reconcile()
    assert here.differences() == []
    here.clock.pass_(5_000)
    again = here.reconcile()
    assert (again.events, again.kinds, again.learned) == (0, {}, {})


def populate(here: Installation) -> None:
    here.groups.add(GROUP, imported("ann", "bob", custom_fields={"k": "v"}, attributes={"a": "1"}))
    here.groups.add(COMMUNITY, imported(*(f"user{number:03}" for number in range(450)), kind="Community"))
    here.groups.add(LIVE, imported("ann", "bob", kind="AVChatRoom"))


def test_the_first_run_on_an_empty_mirror_brings_every_group_and_the_second_nothing(here: Installation) -> None:
    populate(here)
    report = here.reconcile()
    assert (report.is_first, counts(report)) == (True, {"unknown_group": {"found": 3, "corrected": 3}})
    assert here.differences() == []
    again = here.reconcile()
    assert (again.is_first, again.events, has_drift(again)) == (False, 0, False)
    assert here.shown()[GROUP][1]["bob"]["joined_at"] == "2020-09-13T12:26:40.000Z"


def test_every_kind_of_loss_is_found_and_corrected(here: Installation) -> None:
    populate(here)
    here.reconcile()
    here.clock.pass_(60_000)
    here.happen(commands.JOINED, GROUP, "cyd")
    here.happen(commands.LEFT, GROUP, "bob", ExitMemberList=[{"Member_Account": "bob"}])
    here.happen(commands.PROFILE_CHANGED, GROUP, Name="new", UserDefinedDataList=[{"Key": "k", "Value": "w"}])
    here.happen(commands.ATTRIBUTES_CHANGED, GROUP, OptionType="set", GroupAttr=[{"key": "b", "value": "2"}])
    here.happen(commands.MEMBER_CHANGED, COMMUNITY, "user001", Role="Admin", NameCard="card")
    here.happen(commands.OWNER_CHANGED, COMMUNITY, "user002")
    here.happen(commands.LEFT, COMMUNITY, "user003", ExitMemberList=[{"Member_Account": "user003"}])
    here.happen(commands.JOINED, COMMUNITY, "user003")
    here.happen(commands.LEFT, COMMUNITY, "user004", ExitMemberList=[{"Member_Account": "user004"}])
    here.happen(commands.DISMISSED, LIVE)
    here.clock.pass_(60_000)
    report = here.reconcile()
    assert counts(report) == {
        kind: {"found": number, "corrected": number}
        for kind, number in {
            "missing_join": 1,
            "missing_exit": 2,
            "missed_rejoin": 1,
            "stale_profile.name": 1,
            "stale_profile.notification": 1,
            "stale_custom_field": 1,
            "stale_attributes": 2,
            "stale_role": 1,
            "stale_name_card": 1,
            "stale_owner": 1,
            "phantom_group": 1,
        }.items()
    }
    assert "Group.CallbackAfterMemberFieldChanged" in report.never_received
    assert here.differences() == []
    assert has_drift(report)
    agree(here)


def test_a_check_finds_the_same_and_appends_nothing(here: Installation) -> None:
    populate(here)
    here.reconcile()
    here.happen(commands.JOINED, GROUP, "cyd")
    here.clock.pass_(5_000)
    before = here.store.head()
    report = here.reconcile(check=True)
    assert (counts(report), has_drift(report)) == ({"missing_join": {"found": 1}}, True)
    assert here.store.head() == before


def test_a_difference_whose_callback_arrives_before_the_second_answer_is_settled_late(here: Installation) -> None:
    populate(here)
    here.reconcile()
    late = here.happen(commands.JOINED, GROUP, "cyd")
    here.clock.pass_(5_000)

    seen: list[str] = []

    def before(request: Any) -> None:
        seen.append(request.command)
        if seen.count("get_group_info") == 2:
            here.deliver(late)

    here.before = before
    report = here.reconcile()
    assert counts(report) == {"missing_join": {"found": 1, "settled_late": 1}}
    assert not has_drift(report)


def test_a_difference_about_which_a_callback_has_just_come_is_left_alone(here: Installation) -> None:
    populate(here)
    here.reconcile()
    here.clock.pass_(60_000)
    here.deliver(here.happen(commands.JOINED, GROUP, "cyd"))
    here.happen(commands.LEFT, GROUP, "cyd", ExitMemberList=[{"Member_Account": "cyd"}])
    here.clock.pass_(2_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projector.reconciliation.run.asyncio.sleep", nap(here))
        report = here.reconcile(settle_s=60)
    # 60 s later the difference stands, but the join is still within the minute before that answer.
    assert counts(report)["missing_exit"] in ({"found": 1, "corrected": 1}, {"found": 1, "in_flight": 1})
    agree(here)


def nap(here: Installation) -> Any:
    async def sleep(seconds: float) -> None:
        here.clock.pass_(int(seconds * 1_000) + 1)

    return sleep


def test_a_user_hidden_by_a_page_shift_is_not_removed(here: Installation) -> None:
    users = [f"user{number:03}" for number in range(900)]
    here.groups.add(GROUP, imported(*users))
    here.reconcile()
    here.clock.pass_(60_000)
    pages = 0

    def before(request: Any) -> Any:
        nonlocal pages
        if request.command == "get_group_info" and not pages:
            return None
        if request.command == "get_group_member_info":
            pages += 1
            if pages == 1:
                return 10018  # so it is read by pages
            if pages == 3:
                here.deliver(here.happen(commands.LEFT, GROUP, users[5], ExitMemberList=[{"Member_Account": users[5]}]))
        return None

    here.before = before
    with pytest.MonkeyPatch.context() as patch:
        group = rest_client._group
        patch.setattr(rest_client, "_group", lambda item, answer: group(item, answer)._replace(roster=None))
        report = here.reconcile()
    assert pages > 4
    assert "missing_exit" not in counts(report) or "corrected" not in counts(report)["missing_exit"]
    here.before = lambda _: None
    assert set(here.shown()[GROUP][1]) == set(users) - {users[5]}


def test_an_empty_list_stops_a_run_before_it_appends(here: Installation) -> None:
    populate(here)
    here.reconcile()
    for group_id in list(here.groups):
        here.groups.remove(group_id)
    before = here.store.head()
    with pytest.raises(Unsafe, match="lists no groups, but 3 are known"):
        here.reconcile()
    assert here.store.head() == before
    here.clock.pass_(5_000)
    here.reconcile(force=True)
    assert here.differences() == []


def test_a_mass_exodus_stops_a_run_before_it_appends(here: Installation) -> None:
    populate(here)
    here.reconcile()
    community = here.groups.find(COMMUNITY)
    assert community
    for number in range(150):
        community.members.pop(f"user{number + 100:03}")
    here.clock.pass_(5_000)
    before = here.store.head()
    with pytest.raises(Unsafe, match="150 of 452 memberships no more, which is over 20%"):
        here.reconcile()
    assert here.store.head() == before
    assert here.reconcile(force=True).kinds["missing_exit"].corrected == 150


def test_the_groups_of_another_app_stop_a_run_before_it_appends(here: Installation) -> None:
    populate(here)
    foreign = here.vendor._api._info_of

    def of_another_app(group_id: str, wanted: Any) -> Any:
        return foreign(group_id, wanted) | {"Appid": 7}

    here.vendor._api._info_of = of_another_app  # type: ignore[method-assign]
    with pytest.raises(Unsafe, match="groups of SDKAppID 7"):
        here.reconcile()
    assert here.store.head() == 0


@pytest.mark.parametrize("fault", ["truncated", "HTML", "status 502", 10002])
def test_a_roster_that_is_not_read_to_its_end_makes_nobody_absent(here: Installation, fault: Any) -> None:
    populate(here)
    here.reconcile()
    here.clock.pass_(5_000)
    pages = 0

    def before(request: Any) -> Any:
        nonlocal pages
        if request.command == "get_group_member_info":
            pages += 1
            return fault if pages >= 3 else None
        return None

    here.before = before
    before_run = here.store.head()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projector.reconciliation.rest_client.asyncio.sleep", nap(here))
        with pytest.raises(Unavailable, match="8 times"):
            here.reconcile()
    assert here.store.head() == before_run
    here.before = lambda _: None
    assert here.reconcile().run == 2  # the same run goes on
    assert here.differences() == []


def test_a_group_observed_after_its_dismissal_is_whole_again(here: Installation) -> None:
    populate(here)
    here.reconcile()
    here.clock.pass_(60_000)
    here.deliver(here.happen(commands.DISMISSED, GROUP))
    here.clock.pass_(60_000)
    here.happen(commands.CREATED, GROUP, "cyd", "ann")
    here.clock.pass_(60_000)
    report = here.reconcile()
    assert counts(report) == {"revived_group": {"found": 1, "corrected": 1}}
    assert here.differences() == []
    agree(here)


def test_a_group_that_was_dismissed_and_created_unnoticed_is_whole_again(here: Installation) -> None:
    populate(here)
    here.reconcile()
    here.clock.pass_(60_000)
    here.happen(commands.DISMISSED, GROUP)
    here.happen(commands.CREATED, GROUP, "ann", "cyd")
    here.clock.pass_(60_000)
    report = here.reconcile()
    assert report.kinds["reborn_group"].corrected == 1
    assert here.differences() == []
    agree(here)


def test_a_group_that_began_before_the_callbacks_is_completed(here: Installation) -> None:
    populate(here)
    here.deliver(here.happen(commands.JOINED, GROUP, "cyd"))
    assert not here.shown()[GROUP][0]["roster_complete"]
    here.clock.pass_(60_000)
    here.reconcile()
    assert here.differences() == []
    assert here.shown()[GROUP][0]["created_at"] == "2020-09-13T12:26:40.000Z"
    agree(here)


def test_a_forgotten_member_in_the_vendors_roster_is_no_drift(here: Installation) -> None:
    from projector.bootstrap import open_stores
    from projector.forgetting import begin, finish

    populate(here)
    here.reconcile()
    pseudonym = begin(here.store, "bob")
    quarantine = open_stores(here.settings).quarantine

    def rebuild() -> None:
        from projector.bootstrap import PROJECTIONS
        from projector.replay.replay import Replay

        Replay(here.store, here.generations, PROJECTIONS).replace_outdated()

    finish(here.store, quarantine, None, rebuild=rebuild, on_progress=lambda _: None)
    assert pseudonym in here.shown()[GROUP][1]
    report = here.reconcile()
    assert (report.events, counts(report)) == (0, {})
    here.happen(commands.LEFT, GROUP, "bob", ExitMemberList=[{"Member_Account": "bob"}])
    here.clock.pass_(5_000)
    report = here.reconcile()
    assert counts(report) == {"missing_exit": {"found": 1, "corrected": 1}}
    assert list(here.shown()[GROUP][1]) == ["ann"]


def test_only_the_groups_named_are_compared(here: Installation) -> None:
    populate(here)
    report = here.reconcile(scope=(GROUP,))
    assert (report.scope, report.groups["compared"], list(here.shown())) == ([GROUP], 1, [GROUP])
    assert here.reconcile().is_first
