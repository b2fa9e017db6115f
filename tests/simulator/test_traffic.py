"""The simulator's traffic: seeded, realistic, as disordered as the options say, and consistent."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from projector.callbacks import carries_group_state, translate
from projector.simulator import Options, commands
from projector.simulator.expected import ExpectedGroup, apply
from projector.simulator.traffic import Traffic
from tests.callbacks.payloads import RECORDED

if TYPE_CHECKING:
    from projector.simulator.life import Delivery

NOW = 1_800_000_000_000


def options(**changed: Any) -> Options:
    settings = {
        "url": "http://127.0.0.1",
        "sdk_app_id": 1,
        "callback_path": "/callback",
        "callbacks": 5_000,
        "groups": 50,
        **changed,
    }
    return Options(**settings)


def deliveries(traffic: Traffic) -> tuple[list[Delivery], list[list[Delivery]]]:
    return [*traffic.timed()], [[*sequence] for sequence in traffic.untimed()]


def test_the_same_seed_gives_the_same_traffic_and_another_seed_other_traffic() -> None:
    first, again, other = (Traffic(options(seed=seed), now_ms=NOW) for seed in (1, 1, 2))
    assert deliveries(first) == deliveries(again)
    assert first.expected == again.expected
    assert deliveries(other)[0] != deliveries(Traffic(options(seed=1), now_ms=NOW))[0]


def test_nothing_happens_in_the_future_and_no_two_things_in_a_group_at_once() -> None:
    timed, _ = deliveries(Traffic(options(repeats=0), now_ms=NOW))
    by_group = defaultdict(list)
    for delivery in timed:
        by_group[delivery.group_id].append(delivery.happened_at)
    assert max(delivery.happened_at for delivery in timed) < NOW
    assert all(len(set(moments)) == len(moments) for moments in by_group.values())


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_configured_share_is_sent_twice(share: float) -> None:
    timed, untimed = deliveries(Traffic(options(repeats=share), now_ms=NOW))
    counts = Counter(delivery.body for delivery in timed)
    assert sum(count == 2 for count in counts.values()) == pytest.approx(share * len(counts), rel=0.2, abs=1)
    assert len(timed) + sum(map(len, untimed)) == pytest.approx(5_000, rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_configured_share_is_sent_late(share: float) -> None:
    for groups in (5, 500):
        timed, _ = deliveries(Traffic(options(reordered=share, repeats=0, untimed=0, groups=groups), now_ms=NOW))
        newest: dict[str, int] = defaultdict(int)
        late = 0
        for delivery in timed:
            late += delivery.happened_at < newest[delivery.group_id]
            newest[delivery.group_id] = max(newest[delivery.group_id], delivery.happened_at)
        delayed = share * len(timed)
        assert delayed / 3 <= late <= delayed * 1.1, "sent after later callbacks of the same group"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_configured_share_has_no_event_time_and_comes_last_in_its_group(share: float) -> None:
    timed, untimed = deliveries(Traffic(options(untimed=share, repeats=0), now_ms=NOW))
    last = [delivery for sequence in untimed for delivery in sequence]
    assert len(last) == pytest.approx(share * (len(timed) + len(last)), rel=0.1, abs=1)
    assert all("EventTime" in json.loads(delivery.body) for delivery in timed)
    assert not any("EventTime" in json.loads(delivery.body) for delivery in last)
    assert all(len({delivery.group_id for delivery in sequence}) == 1 for sequence in untimed)


def test_it_knows_every_command_that_a_receiver_records() -> None:
    assert {*commands.RECORDED} == {
        payload.query.get("CallbackCommand") or json.loads(payload.body)["CallbackCommand"] for payload in RECORDED
    }


def test_every_recorded_command_occurs_and_can_be_read_and_so_do_ignored_ones() -> None:
    timed, untimed = deliveries(Traffic(options(callbacks=20_000), now_ms=NOW))
    sent = [*timed, *(delivery for sequence in untimed for delivery in sequence)]
    assert {delivery.command for delivery in sent} == {*commands.RECORDED, *commands.IGNORED}
    for delivery in sent:
        if carries_group_state(delivery.command):
            translate(delivery.command, delivery.body, platform=delivery.platform, received_at=NOW)
    compact = json.dumps(json.loads(timed[0].body), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    assert timed[0].body == compact.encode(), "keys in alphabetical order, as the vendor sends them"


def state_after(*callbacks: dict[str, Any]) -> ExpectedGroup:
    group = ExpectedGroup()
    for callback in callbacks:
        apply(group, {"Operator_Account": "op", "Type": "Public", **callback})
    return group


def members(*users: str) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]


CREATION = {"CallbackCommand": commands.CREATED, "Owner_Account": "ann", "MemberList": members("bob"), "Name": "n"}


def test_the_expected_state_follows_from_short_sequences_of_callbacks() -> None:
    group = state_after(CREATION)
    assert (set(group.members), group.owner, group.roster_complete) == ({"ann", "bob"}, "ann", True)
    left = {"CallbackCommand": commands.LEFT, "ExitMemberList": members("ann")}
    assert state_after(CREATION, left).owner is None
    full = {"CallbackCommand": commands.FILLED}
    assert state_after(CREATION, full).shown()["member_limit"] == 2
    assert not state_after(CREATION, full, left).is_full
    dismissal = {"CallbackCommand": commands.DISMISSED}
    assert (state_after(CREATION, dismissal).members, state_after(CREATION, dismissal).texts) == ({}, {"name": "n"})
    again = {"CallbackCommand": commands.CREATED, "Owner_Account": "cyd"}
    assert (state_after(CREATION, dismissal, again).texts, set(state_after(CREATION, dismissal, again).members)) == (
        {},
        {"cyd"},
    )
