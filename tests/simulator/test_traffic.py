"""The simulator's traffic: seeded, realistic, disturbed as asked, and never contradicting itself."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from projector.callbacks import carries_group_state, translate
from projector.simulator import Options, commands
from projector.simulator.expected import ExpectedGroup, apply
from projector.simulator.traffic import Traffic

if TYPE_CHECKING:
    from projector.simulator.life import Delivery

NOW = 1_800_000_000_000


def options(**changed: Any) -> Options:
    settings = {"url": "http://127.0.0.1", "sdk_app_id": 1, "callbacks": 5_000, "groups": 50, **changed}
    return Options(**settings)


def told(traffic: Traffic) -> tuple[list[Delivery], list[list[Delivery]]]:
    return [*traffic.timed()], [[*sequence] for sequence in traffic.untimed()]


def test_the_same_seed_gives_the_same_traffic_and_another_seed_other_traffic() -> None:
    first, again, other = (Traffic(options(seed=seed), now_ms=NOW) for seed in (1, 1, 2))
    assert told(first) == told(again)
    assert first.expected == again.expected
    assert told(other)[0] != told(Traffic(options(seed=1), now_ms=NOW))[0]


def test_nothing_happens_in_the_future_and_no_two_things_in_a_group_at_once() -> None:
    timed, _ = told(Traffic(options(repeats=0), now_ms=NOW))
    by_group = defaultdict(list)
    for one in timed:
        by_group[one.group_id].append(one.happened_at)
    assert max(one.happened_at for one in timed) < NOW
    assert all(len(set(moments)) == len(moments) for moments in by_group.values())


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_asked_share_comes_twice(share: float) -> None:
    timed, untimed = told(Traffic(options(repeats=share), now_ms=NOW))
    counts = Counter(one.body for one in timed)
    assert sum(count == 2 for count in counts.values()) == pytest.approx(share * len(counts), rel=0.2, abs=1)
    assert len(timed) + sum(map(len, untimed)) == pytest.approx(5_000, rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_asked_share_comes_late(share: float) -> None:
    for groups in (5, 500):
        timed, _ = told(Traffic(options(reordered=share, repeats=0, untimed=0, groups=groups), now_ms=NOW))
        newest: dict[str, int] = defaultdict(int)
        late = 0
        for one in timed:
            late += one.happened_at < newest[one.group_id]
            newest[one.group_id] = max(newest[one.group_id], one.happened_at)
        held_back = share * len(timed)
        assert held_back / 3 <= late <= held_back * 1.1, "held back while others of the same group pass"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_asked_share_does_not_tell_its_time_and_comes_last_in_its_group(share: float) -> None:
    timed, untimed = told(Traffic(options(untimed=share, repeats=0), now_ms=NOW))
    silent = [one for sequence in untimed for one in sequence]
    assert len(silent) == pytest.approx(share * (len(timed) + len(silent)), rel=0.1, abs=1)
    assert all("EventTime" in json.loads(one.body) for one in timed)
    assert not any("EventTime" in json.loads(one.body) for one in silent)
    assert all(len({one.group_id for one in sequence}) == 1 for sequence in untimed)


def test_every_recorded_command_occurs_and_can_be_read_and_so_do_ignored_ones() -> None:
    timed, untimed = told(Traffic(options(callbacks=20_000), now_ms=NOW))
    everything = [*timed, *(one for sequence in untimed for one in sequence)]
    assert {one.command for one in everything} == {*commands.RECORDED, *commands.IGNORED}
    for one in everything:
        if carries_group_state(one.command):
            translate(one.command, one.body, platform=one.platform, received_at=NOW)
    compact = json.dumps(json.loads(timed[0].body), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    assert timed[0].body == compact.encode(), "keys in alphabetical order, as the vendor sends them"


def story(*callbacks: dict[str, Any]) -> ExpectedGroup:
    group = ExpectedGroup()
    for callback in callbacks:
        apply(group, {"Operator_Account": "op", "Type": "Public", **callback})
    return group


def members(*users: str) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]


CREATION = {"CallbackCommand": commands.CREATED, "Owner_Account": "ann", "MemberList": members("bob"), "Name": "n"}


def test_what_must_be_shown_follows_from_small_stories() -> None:
    group = story(CREATION)
    assert (set(group.members), group.owner, group.roster_complete) == ({"ann", "bob"}, "ann", True)
    left = {"CallbackCommand": commands.LEFT, "ExitMemberList": members("ann")}
    assert story(CREATION, left).owner is None
    full = {"CallbackCommand": commands.FILLED}
    assert story(CREATION, full).shown()["member_limit"] == 2
    assert not story(CREATION, full, left).is_full
    dismissal = {"CallbackCommand": commands.DISMISSED}
    assert (story(CREATION, dismissal).members, story(CREATION, dismissal).texts) == ({}, {"name": "n"})
    again = {"CallbackCommand": commands.CREATED, "Owner_Account": "cyd"}
    assert (story(CREATION, dismissal, again).texts, set(story(CREATION, dismissal, again).members)) == ({}, {"cyd"})
