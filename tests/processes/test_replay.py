"""Replay: damage is reported and corrected, a lost read model is rebuilt, and clients see no errors meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from projector.bootstrap import open_generations
from projector.read_model.generations import RebuildProgress
from tests import oracle
from tests.kinds import copied, generations, settings
from tests.processes.databases import (
    VERSIONS,
    assert_served_as_recorded,
    change_read_model,
    checkpoints,
    history,
    lose_read_model,
    outdate_read_model,
    rows,
    write,
)
from tests.processes.traffic import GROUPS, Ledger, callback, pouring
from tests.processes.waiting import until
from tests.running import environment, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20230101
COUNT = 2_000
GROUP, OTHER = GROUPS[0], GROUPS[1]


@pytest.fixture(scope="module")
def projected(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose read model has reached the head."""
    database = tmp_path_factory.mktemp("projected") / "events.db"
    write(database, range(1, COUNT + 1), SEED)
    assert run_cli(database, "replay").returncode == 0
    return database


@pytest.fixture
def database(projected: Path, tmp_path: Path) -> Path:
    """A copy that tests may damage."""
    return copied(projected, tmp_path / "copy")


def a_member(database: Path, group_id: str) -> str:
    """The first member of a group, from its events."""
    return min(oracle.members(oracle.facts(history(database)), group_id))


DAMAGES = {
    "a row changed": ("UPDATE members SET joined_at = 5 WHERE group_id = :group AND user_id = :user", "members {user}"),
    "a row deleted": ("DELETE FROM members WHERE group_id = :group AND user_id = :user", "members {user}"),
    "a row added": (
        (
            "INSERT INTO members"
            " VALUES (:group, 'ghost', 5, 5, 5, 'Member', NULL, NULL, NULL, '{{}}', 5, 5, 1, NULL, NULL)"
        ),
        "members ghost",
    ),
    "a wrong count": ("UPDATE groups SET member_count = member_count + 1 WHERE group_id = :group", "groups"),
    "a profile deleted": ("DELETE FROM profiles WHERE group_id = :group", "profiles"),
    "a wrong floor of a roster": ("UPDATE groups SET roster_floor_at = 1 WHERE group_id = :group", "groups"),
    "evidence deleted": ("UPDATE groups SET evidence = '{{}}' WHERE group_id = :group", "groups"),
}


@pytest.mark.parametrize(("damage", "where"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_reported_with_both_values_by_a_check_that_changes_nothing_and_corrected_by_a_replay(
    database: Path, damage: str, where: str
) -> None:
    user, correct = a_member(database, GROUP), rows(database)
    statement = damage.format()
    change_read_model(database, statement.replace(":group", f"'{GROUP}'").replace(":user", f"'{user}'"))
    damaged = rows(database)

    check = run_cli(database, "replay", "--check")
    assert check.returncode == 1
    group, row, live, rebuilt = (line.strip() for line in check.stdout.splitlines()[:4])
    assert (group, row) == (f"group {GROUP}", where.format(user=user))
    table = row.split()[0]
    (changed,) = {*damaged[table]} - {*correct[table]} or {None}
    (original,) = {*correct[table]} - {*damaged[table]} or {None}
    assert live.split(maxsplit=1) == ["live", str(changed)]
    assert rebuilt.split(maxsplit=1) == ["rebuilt", str(original)]
    assert check.stdout.splitlines()[-1] == f"position {COUNT}: 1 row differed"
    assert rows(database) == damaged

    replay = run_cli(database, "replay")
    assert replay.returncode == 1, "it differed"
    assert replay.stdout.splitlines()[-1] == f"position {COUNT}: 1 row differed; corrected"
    assert rows(database) == correct
    again = run_cli(database, "replay", "--check")
    assert (again.returncode, again.stdout) == (0, f"position {COUNT}: read model matches the history\n")


def test_with_a_group_only_that_group_is_compared_and_corrected(database: Path) -> None:
    correct = rows(database)
    for group_id in (GROUP, OTHER):
        change_read_model(database, f"UPDATE groups SET member_count = 99 WHERE group_id = '{group_id}'")
    assert run_cli(database, "replay", "--check", "--group", GROUPS[2]).returncode == 0
    check = run_cli(database, "replay", "--check", "--group", GROUP)
    assert (check.returncode, f"group {GROUP}\n" in check.stdout, OTHER in check.stdout) == (1, True, False)
    assert run_cli(database, "replay", "--group", GROUP).returncode == 1
    left = run_cli(database, "replay", "--check")
    assert (left.returncode, GROUP in left.stdout, f"group {OTHER}\n" in left.stdout) == (1, False, True)
    assert run_cli(database, "replay", "--group", OTHER).returncode == 1
    assert rows(database) == correct


def test_a_read_model_that_is_deleted_or_of_another_schema_is_rebuilt_at_the_next_start(database: Path) -> None:
    correct = rows(database)
    lose_read_model(database)
    with serving(database) as server:
        assert_served_as_recorded(server, database)
    assert rows(database) == correct
    outdate_read_model(database)
    with serving(database) as server:
        assert_served_as_recorded(server, database)
    assert rows(database) == correct


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_read_model_files_deleted_under_a_running_server_are_built_again_and_served(database: Path) -> None:
    with serving(database) as server:
        assert_served_as_recorded(server, database)
        for file in database.parent.glob(f"{database.name}.read-model*"):
            file.unlink()
        assert (server.get("/readyz").status_code, server.get("/v1/groups").status_code) == (503, 503)
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        server.post(callback(COUNT + 1, SEED)).raise_for_status()
        assert_served_as_recorded(server, database)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)  # PostgreSQL keeps, and so restores, both together
@pytest.mark.parametrize("meanwhile", [0, 1, 100])
def test_a_read_model_of_other_events_than_those_of_a_restored_backup_is_rebuilt(
    tmp_path: Path, meanwhile: int
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 51), SEED)
    backup = copied(database, tmp_path / "backup")
    write(database, range(51, 101), SEED)
    assert run_cli(database, "replay").returncode == 0
    backup.replace(database)
    write(database, range(201, 201 + meanwhile), SEED)
    with serving(database) as server:
        position = int(server.post(callback(101, SEED)).headers["Projector-Position"])
        assert position == 51 + meanwhile
        assert_served_as_recorded(server, database)


def test_a_rollback_restores_the_previous_model_brought_up_to_the_position_of_the_live_one(database: Path) -> None:
    change_read_model(database, f"UPDATE groups SET member_count = 99 WHERE group_id = '{GROUP}'")
    damaged = rows(database)
    assert run_cli(database, "replay").returncode == 1
    correct = rows(database)
    with serving(database) as server:
        assert server.members(GROUP)
        assert (
            run_cli(database, "replay", "--rollback").stdout
            == f"position {COUNT}: rolled back to the previous read model\n"
        )
        assert server.group(GROUP)["member_count"] == 99
        position = int(server.post(callback(COUNT + 1, SEED)).headers["Projector-Position"])
        assert server.group(OTHER, wait_for=position)
        assert run_cli(database, "replay", "--rollback").returncode == 0, "and back again"
        assert_served_as_recorded(server, database)
        assert {*checkpoints(database).values()} == {COUNT + 1}
    assert {table: damaged[table] == correct[table] for table in correct if table != "mark"} == {
        table: table != "groups" for table in correct if table != "mark"
    }


def test_without_a_previous_model_of_this_version_a_rollback_is_refused_and_changes_nothing(database: Path) -> None:
    before = rows(database)
    refused = run_cli(database, "replay", "--rollback")
    assert (refused.returncode, refused.stderr) == (
        2,
        "projector: there is no previous read model to roll back to\n",
    )
    change_read_model(database, "UPDATE checkpoints SET version = 9 WHERE projection = 'groups'")
    assert run_cli(database, "replay").returncode == 0
    refused = run_cli(database, "replay", "--rollback")
    assert refused.returncode == 2
    assert f"the rows of groups are of version 9, not {VERSIONS['groups']}" in refused.stderr
    assert rows(database) == before


@pytest.mark.parametrize("name", ["groups", "membership", "profile", "fullness", "timeline"])
def test_with_a_projection_even_of_an_earlier_version_everything_is_rebuilt_and_compared(
    database: Path, name: str
) -> None:
    correct = rows(database)
    change_read_model(database, f"UPDATE groups SET member_count = 99 WHERE group_id = '{GROUP}'")
    change_read_model(database, f"DELETE FROM profiles WHERE group_id = '{GROUP}'")
    replayed = run_cli(database, "replay", "--projection", name)
    assert (replayed.returncode, replayed.stdout.splitlines()[-1]) == (
        1,
        f"position {COUNT}: 2 rows differed; corrected",
    )
    assert rows(database) == correct


def test_if_needed_builds_nothing_when_the_read_model_is_up_to_date(database: Path) -> None:
    before = generations(database)
    done = run_cli(database, "replay", "--if-needed")
    assert (done.returncode, done.stdout) == (0, "read model is up to date\n")
    assert generations(database) == before


def test_status_shows_a_replay_in_progress_and_a_second_replay_reports_that_it_waits(database: Path) -> None:
    with open_generations(settings(database)).begin_rebuild() as _:
        open_generations(settings(database)).report_progress(RebuildProgress("fold", 500, COUNT))
        status = run_cli(database, "status")
        assert f"replay        in progress: fold, 500 of {COUNT} events\n" in status.stdout
        assert json.loads(run_cli(database, "status", "--json").stdout)["replay"] == {
            "phase": "fold",
            "done": 500,
            "total": COUNT,
        }
        second = subprocess.Popen(
            [sys.executable, "-m", "projector", "replay"], env=environment(database), stderr=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert second.stderr.readline() == "replay: waiting for another replay of this database\n"
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert json.loads(run_cli(database, "status", "--json").stdout)["replay"] is None


_HOLD = """
import os, sys, time
from projector.bootstrap import open_generations
from projector.settings import read_settings
with open_generations(read_settings(os.environ)).begin_rebuild():
    print("begun", flush=True)
    time.sleep(600)
"""


def test_while_a_replay_is_suspended_a_server_starts_and_takes_callbacks_and_builds_when_it_can(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 51), SEED)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD], env=environment(database), stdout=subprocess.PIPE, text=True
    ) as suspended:
        try:
            assert suspended.stdout is not None
            assert suspended.stdout.readline() == "begun\n"
            suspended.send_signal(signal.SIGSTOP)
            with serving(database) as server:
                assert server.post(callback(51, SEED)).headers["Projector-Position"] == "51"
                assert server.get("/readyz").status_code == 503
                assert server.get("/v1/groups").status_code == 503
                assert server.stop() == 0
            with serving(database) as server:
                suspended.kill()
                until(lambda: server.get("/readyz").status_code == 200, of=server)
                assert_served_as_recorded(server, database)
        finally:
            suspended.kill()


class Reader(threading.Thread):
    """Reads rosters until stopped, and notes each response that is an error, inconsistent, or older than the last."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.stopping = threading.Event()
        self.responses = 0
        self.faults: list[str] = []
        self._server = server
        self._position = 0

    def run(self) -> None:
        with httpx2.Client(timeout=30) as client:
            while not self.stopping.is_set():
                for group_id in GROUPS:
                    response = client.get(f"{self._server.url}{self._server.group_path(group_id)}/members?limit=1000")
                    self._note(response)

    def _note(self, response: httpx2.Response) -> None:
        self.responses += 1
        if response.status_code != 200:
            self.faults.append(f"{response.status_code} {response.text}")
        elif response.json()["member_count"] != len(response.json()["members"]):
            self.faults.append(f"inconsistent: {response.text}")
        else:
            before, self._position = self._position, int(response.headers["Projector-Position"])
            if self._position < before:
                self.faults.append(f"back from {before} to {self._position}")


def test_replays_while_callbacks_pour_in_correct_only_damage_and_clients_see_no_errors_and_never_an_older_state(
    database: Path,
) -> None:
    ledger = Ledger(SEED, sent={*range(1, COUNT + 1)})
    with serving(database) as server:
        reader = Reader(server)
        reader.start()
        with pouring(server, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=100)
            for arguments in ([], ["--check"], ["--group", GROUP]):
                done = run_cli(database, "replay", *arguments)
                assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stdout + done.stderr
                ledger.wait_for(acknowledged=100)
            change_read_model(database, f"DELETE FROM profiles WHERE group_id = '{GROUP}'")
            change_read_model(database, f"UPDATE profiles SET evidence = '{{}}' WHERE group_id = '{OTHER}'")
            replay = run_cli(database, "replay")
            assert replay.returncode == 1
            assert "; corrected" in replay.stdout
            ledger.wait_for(acknowledged=100)
        reader.stopping.set()
        reader.join()
        assert reader.faults == []
        assert reader.responses > 0
        ledger.assert_kept(history(database))
        assert_served_as_recorded(server, database)
        assert run_cli(database, "replay", "--check").returncode == 0


def test_several_replays_at_once_do_not_disturb_each_other(database: Path) -> None:
    for _ in range(4):
        outcomes: list[Any] = []
        threads = [
            threading.Thread(target=lambda outcomes=outcomes: outcomes.append(run_cli(database, "replay")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [done.stderr for done in outcomes if done.returncode != 0] == []
