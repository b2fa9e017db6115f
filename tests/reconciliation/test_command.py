"""`projector reconcile` as people and schedulers run it: exit statuses, reports, kill -9, and a server beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from projector.simulator import commands
from projector.simulator.vendor.groups import VendorGroups
from tests.running import environment, run_cli, serving
from tests.vendor import FakeVendor, imported, vendor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from projector.simulator.vendor.server import Request

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]

GROUP, COMMUNITY = "@TGS#1", "@TGS#_@TGS#c"


@pytest.fixture
def fake() -> Iterator[FakeVendor]:
    groups = VendorGroups()
    groups.add(GROUP, imported("ann", "bob", limit=200))
    groups.add(COMMUNITY, imported(*(f"user{number:03}" for number in range(250)), kind="Community"))
    with vendor(groups) as running:
        yield running


def reconcile(database: Path, fake: FakeVendor, *arguments: str, **more: str) -> tuple[int, str, str]:
    done = run_cli(database, "reconcile", *arguments, **fake.settings(**more))
    return done.returncode, done.stdout, done.stderr


def exclude(fake: FakeVendor, user: str) -> None:
    fake.happen(commands.LEFT, GROUP, user, ExitMemberList=[{"Member_Account": user}])


def test_the_exit_status_says_whether_there_was_drift(tmp_path: Path, fake: FakeVendor) -> None:
    database = tmp_path / "events.db"
    status, first, _ = reconcile(database, fake)
    assert status == 0
    assert "unknown_group: 2 found, 2 corrected" in first
    exclude(fake, "bob")
    status, checked, _ = reconcile(database, fake, "--check")
    assert (status, "missing_exit: 1 found (told by" in checked) == (1, True)
    status, report, _ = reconcile(database, fake, "--json")
    assert status == 1
    counts = {"found": 1, "corrected": 1, "in_flight": 0, "settled_late": 0, "unsettled": 0}
    assert json.loads(report)["kinds"] == {"missing_exit": counts}
    assert json.loads(report)["never_received"] == ["Group.CallbackAfterMemberExit"]
    status, again, _ = reconcile(database, fake)
    assert (status, "no differences" in again) == (0, True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"PROJECTOR_REST_KEY": ""}, "PROJECTOR_REST_KEY must be set, too"),
        ({"PROJECTOR_REST_URL": "http://console.tim.qq.com"}, "PROJECTOR_REST_URL is 'http://console.tim.qq.com'"),
        ({"PROJECTOR_REST_URL": "nonsense"}, "PROJECTOR_REST_URL is 'nonsense'"),
        ({"PROJECTOR_REST_KEY": "wrong"}, "70009 UserSig is invalid: check PROJECTOR_REST_KEY"),
        ({"PROJECTOR_REST_ADMIN": "ann"}, "PROJECTOR_REST_ADMIN is not an administrator of the app"),
        ({"PROJECTOR_REST_RATE": "0"}, "PROJECTOR_REST_RATE is '0'"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(
    tmp_path: Path, fake: FakeVendor, settings: dict[str, str], says: str
) -> None:
    status, _, error = reconcile(tmp_path / "events.db", fake, **settings)
    assert status == 2
    assert says in error
    assert "usersig" not in error
    assert len([line for line in error.splitlines() if line.startswith("projector: ")]) == 1


def test_without_its_settings_the_command_says_which_they_are(tmp_path: Path) -> None:
    done = run_cli(tmp_path / "events.db", "reconcile")
    assert (done.returncode, "PROJECTOR_REST_URL, PROJECTOR_REST_ADMIN and" in done.stderr) == (2, True)


def test_two_runs_at_once_are_one(tmp_path: Path, fake: FakeVendor) -> None:
    database, second = tmp_path / "events.db", []

    def before(request: Request) -> None:
        if request.number == 2:
            second.append(reconcile(database, fake))

    fake.before = before
    assert reconcile(database, fake)[0] == 0
    assert (second[0][0], "another reconciliation of this database is under way" in second[0][2]) == (2, True)


def killed_at(database: Path, fake: FakeVendor, request_number: int) -> bool:
    """Reconcile, and kill the process with -9 when it sends that request; return whether it came to that."""
    started = threading.Event()
    processes: list[subprocess.Popen[Any]] = []
    first = len(fake.requests)

    def before(request: Request) -> None:
        if request.number == first + request_number:
            started.wait(30)
            os.kill(processes[0].pid, signal.SIGKILL)

    fake.before = before
    processes.append(
        subprocess.Popen(
            [sys.executable, "-m", "projector", "reconcile"],
            env=environment(database, **fake.settings()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )
    started.set()
    status = processes[0].wait(120)
    fake.before = lambda _: None
    return status == -signal.SIGKILL


def test_a_run_killed_at_any_request_goes_on_where_it_was(tmp_path: Path, fake: FakeVendor) -> None:
    database = tmp_path / "events.db"
    request_number = 1
    while killed_at(database, fake, request_number):  # one request more each time: until the bootstrap ends
        request_number += 1
    assert request_number > 3
    report = json.loads(reconcile(database, fake, "--json")[1])
    assert (report["run"], report["events"], report["kinds"]) == (2, 0, {})
    exclude(fake, "bob")
    fake.happen(commands.MEMBER_CHANGED, COMMUNITY, "user007", Role="Admin")
    request_number = 1
    while killed_at(database, fake, request_number):
        request_number += 1
    report = json.loads(reconcile(database, fake, "--json")[1])
    assert (report["run"], report["events"], report["kinds"]) == (4, 0, {})
    verified = run_cli(database, "verify")
    assert (verified.returncode, "no faults" in verified.stdout) == (0, True)


def test_beside_a_server_rosters_are_corrected_and_the_history_says_so(tmp_path: Path, fake: FakeVendor) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        assert reconcile(database, fake)[0] == 0
        joined = fake.happen(commands.JOINED, GROUP, "cyd", JoinType="Apply")
        assert server.post(joined).status_code == 200
        exclude(fake, "bob")
        status, report, error = reconcile(database, fake)
        assert (status, "missing_exit: 1 found, 1 corrected" in report) == (1, True), (report, error)
        events = server.get("/v1/events", limit=1000).json()["events"]
        (absence,) = [event for event in events if event["type"] == "MembersObservedAbsent"]
        assert (absence["source"], absence["platform"], absence["operator"]) == ("reconcile", None, None)
        assert absence["callback"] == {
            "GroupId": GROUP,
            "UserIdList": [{"Member_Account": "bob", "Role": "NotMember"}],
        }
        members = server.members(GROUP, wait_for=absence["position"])
        assert {user: member["join_type"] for user, member in members.items()} == {"ann": None, "cyd": "Apply"}
