"""The property that decides: whatever was lost, late or repeated, a run makes the mirror equal to the vendor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.simulator import commands
from tests import oracle, shown
from tests.processes.campaign import rounds
from tests.reconciliation.installation import Callback, Installation, installed
from tests.vendor import imported

if TYPE_CHECKING:
    from projector.domain.events import Recorded

USERS = ("ann", "bob", "cyd", "dan", "eve")
GROUPS = {"@TGS#1": "Public", "@TGS#2": "Private", "@TGS#_@TGS#c": "Community", "@TGS#3": "AVChatRoom"}
OPERATIONS = (
    *("create", "join", "join", "join", "leave", "leave", "rejoin", "edit", "edit", "attributes", "member", "member"),
    *("owner", "dismiss", "import", "import member"),
)


class History:
    """A random history at the vendor, of which callbacks are lost, late, repeated, and some without EventTime."""

    def __init__(self, here: Installation, rng: Random) -> None:
        self.here, self.rng = here, rng
        self.late: list[Callback] = []
        self.lost = rng.choice((0.1, 0.3, 0.7))
        self.delayed = rng.choice((0, 0.3))

    def step(self) -> None:
        """Let something happen, or a late callback arrive."""
        self.here.clock.pass_(self.rng.choice((1, 40, 700, 15_000)))
        if self.late and self.rng.random() < 0.3:
            self.here.deliver(self.late.pop(self.rng.randrange(len(self.late))))
        elif callback := self.happen():
            if self.rng.random() < 0.05:
                del callback["EventTime"]
            self.tell(callback)

    def tell(self, callback: Callback) -> None:
        fate = self.rng.random()
        if fate < self.lost:
            return
        if self.rng.random() < self.delayed:
            self.late.append(callback)
            if self.rng.random() < 0.8:
                return
        self.here.deliver(callback)

    def happen(self) -> Callback | None:
        rng, here = self.rng, self.here
        group_id = rng.choice(list(GROUPS))
        group, kind, user = here.groups.find(group_id), GROUPS[group_id], rng.choice(USERS)
        operation = rng.choice(OPERATIONS)
        if group is None:
            if operation == "import":
                here.groups.add(group_id, imported(*rng.sample(USERS, 2), kind=kind, limit=3), at_ms=here.clock.ms)
                return None
            callback = here.happen(commands.CREATED, group_id, user, Type=kind)
            created = here.groups.find(group_id)
            assert created
            created.limit = 3
            here.groups.add(group_id, created, at_ms=here.clock.ms)
            return callback
        if operation == "dismiss":
            return here.happen(commands.DISMISSED, group_id) if rng.random() < 0.5 else None
        members = list(group.members)
        if operation in ("join", "import member", "rejoin") and user not in members and len(members) < group.limit:
            callback = here.happen(commands.JOINED, group_id, user)
            return None if operation == "import member" else callback
        return self.change(group_id, operation, rng.choice(members)) if members else None

    def change(self, group_id: str, operation: str, member: str) -> Callback | None:
        rng, here, kind = self.rng, self.here, GROUPS[group_id]
        match operation:
            case "leave":
                return here.happen(commands.LEFT, group_id, member)
            case "edit":
                key = rng.choice(("Name", "Introduction"))
                value = rng.choice(("", "x", "y"))
                return here.happen(
                    commands.PROFILE_CHANGED,
                    group_id,
                    **{key: value, "UserDefinedDataList": [{"Key": "k", "Value": value}]},
                )
            case "attributes":
                option = rng.choice(("set", "modify", "delete", "clear"))
                pairs = [{"key": rng.choice("ab"), "value": rng.choice("12")}]
                return here.happen(commands.ATTRIBUTES_CHANGED, group_id, OptionType=option, GroupAttr=pairs)
            case "member":
                role = rng.choice(("Admin", "Member"))
                return here.happen(commands.MEMBER_CHANGED, group_id, member, Role=role, NameCard=rng.choice(("", "c")))
            case "owner" if kind != "AVChatRoom":
                return here.happen(commands.OWNER_CHANGED, group_id, member)
        return None


def shuffled(history: list[Recorded], rng: Random) -> list[Recorded]:
    again = [rng.choice(history) for _ in range(5)]
    return rng.sample([*history, *again], len(history) + 5)


@pytest.mark.slow
@settings(deadline=None, max_examples=rounds(60))
@given(st.integers(0, 2**32))
def test_a_run_makes_the_mirror_equal_to_the_vendor_whatever_happened_before_and_meanwhile(seed: int) -> None:
    converge(seed)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", [{"lag_ms": 1_500}, {"skew_ms": 90_000}, {"skew_ms": -90_000}], ids=str)
@settings(deadline=None, max_examples=rounds(10))
@given(seed=st.integers(0, 2**32))
def test_so_it_does_with_a_stale_replica_and_with_clocks_that_differ(vendor: dict[str, int], seed: int) -> None:
    converge(seed, **vendor)


def converge(seed: int, **vendor: Any) -> None:
    rng = Random(seed)
    with tempfile.TemporaryDirectory() as directory, installed(Path(directory), **vendor) as here:
        history = History(here, rng)

        def meanwhile(_: Any) -> None:
            if rng.random() < 0.3:
                history.step()

        for _ in range(rng.randint(0, 3)):
            for _ in range(rng.randint(0, 15)):
                history.step()
            here.before = meanwhile
            began, known = here.clock.ms, {recorded.position for recorded in here.history()}
            here.reconcile(force=True)
            here.before = lambda _: None
            for recorded in here.history():
                if recorded.position not in known and recorded.event.SOURCE == "reconcile":
                    assert began + here.skew_ms - 2_000 <= recorded.event.occurred_at, (
                        "the past is as it was known to be"
                    )
        for _ in range(rng.randint(0, 15)):
            history.step()
        here.deliver(*history.late)
        here.clock.pass_(5_000)
        here.reconcile(force=True)
        assert here.differences() == [], seed
        here.clock.pass_(5_000)
        again = here.reconcile()
        assert (again.events, again.kinds, again.learned) == (0, {}, {})
        recorded = here.history()
        if recorded:
            expected = oracle.everything(oracle.facts(recorded))
            assert here.shown() == expected
            assert shown.folded(shuffled(recorded, rng)) == expected
