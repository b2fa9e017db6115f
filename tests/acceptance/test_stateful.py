"""After every step of a random story, a server must show the state that the oracle computes from the events."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from projector.bootstrap import open_stores
from tests import oracle
from tests.kinds import on_postgresql
from tests.kinds import settings as settings_of
from tests.processes.campaign import rounds
from tests.running import Server, serving

GROUPS = st.sampled_from(["g1", "g/2"])
USERS = st.sampled_from(["ann", "bob", "cyd"])
TEXTS = st.sampled_from(["", "one", "two"])
MOMENTS = st.none() | st.integers(1670574414000, 1670574414060)
FEW = st.lists(USERS, max_size=3)


def accounts(users: list[str]) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]


BODIES = st.one_of(
    st.fixed_dictionaries(
        {"CallbackCommand": st.just("CreateGroup"), "MemberList": FEW.map(accounts)},
        optional={"Name": TEXTS, "Owner_Account": USERS},
    ),
    st.fixed_dictionaries(
        {
            "CallbackCommand": st.just("NewMemberJoin"),
            "NewMemberList": FEW.map(accounts),
            "JoinType": st.sampled_from(["Apply", "Invited", "Else"]),
        },
        optional={"TopicId": TEXTS},
    ),
    st.fixed_dictionaries({"CallbackCommand": st.just("MemberExit"), "ExitMemberList": FEW.map(accounts)}),
    st.fixed_dictionaries({"CallbackCommand": st.just("GroupFull")}, optional={"TopicId": TEXTS}),
    st.fixed_dictionaries({"CallbackCommand": st.just("GroupDestroyed")}, optional={"Name": TEXTS}),
    st.fixed_dictionaries(
        {"CallbackCommand": st.just("GroupInfoChanged")},
        optional={"Name": TEXTS, "FaceUrl": TEXTS, "Notification": TEXTS},
    ),
    st.fixed_dictionaries(
        {"CallbackCommand": st.just("MemberFieldChanged"), "Modified_Account": USERS},
        optional={"Role": st.sampled_from(["Admin", "Member"]), "NameCard": TEXTS},
    ),
    st.fixed_dictionaries({"CallbackCommand": st.just("ChangeGroupOwner"), "NewOwner_Account": USERS}),
    st.fixed_dictionaries(
        {
            "CallbackCommand": st.just("GroupAttrChanged"),
            "OptionType": st.sampled_from(["set", "modify", "clear", "delete"]),
            "GroupAttr": st.lists(st.fixed_dictionaries({"key": TEXTS, "value": TEXTS}), max_size=2),
        }
    ),
    st.fixed_dictionaries({"CallbackCommand": st.sampled_from(["CreateTopic", "TopicInfoChanged"]), "Name": TEXTS}),
)


class Story(RuleBasedStateMachine):
    """Callbacks of two groups and three users, in no order, some without a time, some twice, over restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(TemporaryDirectory()))
        self.sent: list[dict[str, Any]] = []
        self.positions: dict[int, str] = {}
        self.start()

    def start(self) -> None:
        self.running = ExitStack()
        self.server: Server = self.running.enter_context(serving(self.folder / "events.db"))

    @rule(group_id=GROUPS, body=BODIES, moment=MOMENTS, platform=st.sampled_from(["iOS", "RESTAPI"]))
    def a_callback_comes(self, group_id: str, body: dict[str, Any], moment: int | None, platform: str) -> None:
        about = {"GroupId": group_id, "Type": "Public", "Operator_Account": "ann", "EventTime": moment}
        command = f"Group.CallbackAfter{body['CallbackCommand']}"
        self.sent.append({**about, **body, "CallbackCommand": command})
        self.deliver(len(self.sent) - 1)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_callback_comes_again(self, data: st.DataObject) -> None:
        self.deliver(data.draw(st.integers(0, len(self.sent) - 1)))

    @rule(chance=st.integers(0, 19))
    def the_server_is_restarted(self, chance: int) -> None:
        if chance == 0:
            self.running.close()
            self.start()

    def deliver(self, number: int) -> None:
        body = self.sent[number]
        response = self.server.post({name: value for name, value in body.items() if value is not None})
        assert response.status_code == 200
        position = response.headers["Projector-Position"]
        if body["EventTime"] is not None:
            assert self.positions.setdefault(number, position) == position
        self.assert_served_as_the_oracle_computes(int(position))

    def assert_served_as_the_oracle_computes(self, position: int) -> None:
        stores = open_stores(settings_of(self.folder / "events.db"))
        known = oracle.facts(stores.events.read(0, 1000))
        stores.events.close()
        assert len(known) >= position
        expected = oracle.everything(known)
        listed = self.server.get("/v1/groups", wait_for=len(known)).json()["groups"]
        assert listed == [group for group, _ in expected.values()]
        for group_id, (group, members) in expected.items():
            assert self.server.group(group_id) == group
            assert self.server.members(group_id) == members
        for user in ("ann", "bob", "cyd"):
            response = self.server.get(f"/v1/users/{user}/groups")
            assert response.json().get("groups", []) == oracle.groups_of(known, user)

    def teardown(self) -> None:
        self.running.close()
        self.stack.close()


@pytest.mark.slow
@pytest.mark.usefixtures("kind")
def test_a_real_server_agrees_with_the_oracle_in_any_story() -> None:
    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=rounds(4 if on_postgresql() else 8),
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
