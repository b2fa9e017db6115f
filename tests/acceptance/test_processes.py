"""Starting, stopping, dying and failing, as processes do it."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from projector.bootstrap import PROJECTIONS, open_read_model, open_stores
from projector.domain.events import GroupFilled, MembersJoined, MembersLeft
from projector.event_store import Candidate
from projector.settings import Settings
from projector.subscription import Subscription
from tests import oracle
from tests.acceptance.test_crashes import Record, send
from tests.running import Server, environment, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path


def join(user: str, group_id: str = "g") -> dict[str, Any]:
    accounts = [{"Member_Account": user}]
    return {"CallbackCommand": "Group.CallbackAfterNewMemberJoin", "GroupId": group_id, "NewMemberList": accounts}


def recorded(database: Path) -> list[Any]:
    stores = open_stores(Settings(database_path=str(database)))
    try:
        return stores.events.read(0, 1_000_000)
    finally:
        stores.events.close()


def checkpoints(database: Path) -> set[int]:
    with closing(sqlite3.connect(f"{database}.read-model")) as connection:
        return {position for (position,) in connection.execute("SELECT position FROM checkpoints")}


def fill(database: Path, count: int) -> None:
    stores = open_stores(Settings(database_path=str(database)))
    for first in range(0, count, 1000):
        batch = []
        for number in range(first, first + 1000):
            about = {"group_id": f"g{number % 40}", "occurred_at": 1 + number * 7919 % count, "recorded_at": number + 1}
            members = (f"u{number % 613}", f"u{number % 17}")
            event = (
                MembersLeft(**about, members=members)
                if number % 3 == 0
                else GroupFilled(**about)
                if number % 11 == 0
                else MembersJoined(**about, members=members)
            )
            batch.append(Candidate(event, None))
        stores.events.append(batch)
    stores.events.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_under_load_it_answers_what_it_recorded_projects_it_and_exits_with_0(
    tmp_path: Path, number: int
) -> None:
    database, record = tmp_path / "events.db", Record(seed=3)
    with serving(database) as server:
        senders = [threading.Thread(target=send, args=(server, record, f"stop {n}")) for n in range(8)]
        for sender in senders:
            sender.start()
        with record.changed:
            assert record.changed.wait_for(lambda: record.count >= 200, timeout=60)
        assert server.stop(number) == 0
        for sender in senders:
            sender.join()
        assert server.log[-1]["event"] == "stopped"
    assert {path.name for path in tmp_path.iterdir()} == {"events.db", "events.db.read-model"}, "no log is left behind"
    found = {one.event.occurred_at: {one.position} for one in recorded(database)}
    assert found == record.acknowledged
    assert checkpoints(database) == {len(found)}


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for turn in range(3):
        with serving(tmp_path / "events.db") as server:
            position = int(server.post(join(f"user{turn}")).headers["Projector-Position"])
            assert position == turn + 1
            assert server.group("g", wait_for=position)["member_count"] == turn + 1
            assert server.stop() == 0


@pytest.mark.slow
def test_two_servers_on_one_database_double_nothing(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as one, serving(database) as other:
        for number in range(100):
            answer = (one, other)[number % 2].post(join(f"user{number}"))
        position = int(answer.headers["Projector-Position"])
        assert position == 100
        for server in (one, other):
            assert server.group("g", wait_for=100)["member_count"] == 100
        assert run_cli(database, "replay", "--check").returncode == 0


def test_a_read_model_that_is_deleted_is_built_again(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        server.post(join("ann"))
    (tmp_path / "events.db.read-model").unlink()
    with serving(tmp_path / "events.db") as server:
        assert server.members("g", wait_for=1).keys() == {"ann"}


@pytest.mark.slow
def test_killed_while_it_catches_up_it_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    fill(database, 20_000)
    reached = 0
    while reached < 15_000:
        with serving(database, "--only", "projections") as server:
            while min(checkpoints(database), default=0) < reached + 2_000:
                assert server.process.poll() is None
            server.kill()
        assert len(checkpoints(database)) == 1, "all three moved together"
        reached = min(checkpoints(database))
    with serving(database) as server:
        known = oracle.facts(recorded(database))
        for group_id in ("g0", "g7", "g39"):
            server.get("/v1/groups", wait_for=20_000)
            assert server.group(group_id) == oracle.group_of(known, group_id)
            assert server.members(group_id) == oracle.members(known, group_id)
    assert run_cli(database, "replay", "--check").returncode == 0


DAMAGES = {
    "a row changed": "UPDATE members SET exited_at = 9, standing = 0 WHERE user_id = 'u5' AND group_id = 'g5'",
    "rows deleted": "DELETE FROM members WHERE group_id = 'g5'",
    "a row added": "INSERT INTO fullness VALUES ('g5 too', 1, '{}')",
    "a count that is off": "UPDATE rosters SET member_count = member_count + 1 WHERE group_id = 'g5'",
    "a name changed": "UPDATE profiles SET name = 'x' WHERE group_id = 'g5'",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_read_model_is_found_by_a_check_and_put_right_by_a_replay_beside_a_running_server(
    tmp_path: Path, damage: str
) -> None:
    database = tmp_path / "events.db"
    fill(database, 2_000)
    with serving(database) as server:
        server.get("/v1/groups", wait_for=2_000).raise_for_status()
        right = [server.group("g5"), server.members("g5")]
        with closing(sqlite3.connect(f"{database}.read-model", isolation_level=None)) as connection:
            assert connection.execute(damage).rowcount > 0
        for _ in range(2):
            found = run_cli(database, "replay", "--check")
            assert found.returncode == 1
            assert "group g5" in found.stdout
            assert "must be" in found.stdout
        assert run_cli(database, "replay", "--check", "--group", "g6").returncode == 0
        assert run_cli(database, "replay", "--group", "g6").returncode == 0
        assert run_cli(database, "replay", "--check").returncode == 1
        healed = run_cli(database, "replay")
        assert (healed.returncode, "put right" in healed.stdout) == (1, True)
        assert [server.group("g5"), server.members("g5")] == right
        assert run_cli(database, "replay", "--check").returncode == 0
        assert server.stop() == 0
    assert not [path for path in tmp_path.iterdir() if "rebuild" in path.name]


@pytest.mark.slow
def test_replays_beside_callbacks_and_questions_disturb_neither(tmp_path: Path) -> None:
    database, record = tmp_path / "events.db", Record(seed=5)
    fill(database, 5_000)
    with serving(database) as server:
        sender = threading.Thread(target=send, args=(server, record, "replay"))
        sender.start()
        replays = [run_cli(database, "replay") for _ in range(3)]
        assert [replay.returncode for replay in replays] == [0, 0, 0], replays
        assert server.get("/readyz").status_code == 200
        assert server.stop() == 0
        sender.join()
    assert {one.event.occurred_at for one in recorded(database)[5_000:]} == record.acknowledged.keys()


@pytest.mark.slow
def test_while_another_holds_the_store_callbacks_are_refused_with_503_and_taken_again_after(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            answer = server.post(join("ann"))
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json()["ActionStatus"] == "FAIL"
            assert server.post(b"no JSON").status_code == 503, "what cannot be kept must not look as if it were"
            other.execute("COMMIT")
        assert server.post(join("bob")).headers["Projector-Position"] == "1"
        assert server.members("g", wait_for=1).keys() == {"bob"}
        assert not [line for line in server.raw_log if "Traceback" in line]


@pytest.mark.slow
def test_while_another_holds_the_read_model_callbacks_are_taken_and_the_health_says_why_it_is_behind(
    tmp_path: Path,
) -> None:
    with serving(tmp_path / "events.db") as server:
        with closing(sqlite3.connect(tmp_path / "events.db.read-model", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert server.post(join("ann")).status_code == 200
            while (ready := server.get("/readyz")).status_code == 200:
                assert server.process.poll() is None
            assert "projections are halted: SQLite: database is locked" in ready.text
            assert server.get("/v1/groups").json()["groups"] == []
            other.execute("ROLLBACK")
        assert server.members("g", wait_for=1).keys() == {"ann"}
        while server.get("/readyz").status_code != 200:
            assert server.process.poll() is None


def limit_file_size(server: Server, size: int) -> None:
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_on_a_full_disk_callbacks_are_refused_nothing_is_half_kept_and_it_recovers(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        taken = 1
        assert server.post(join("first")).status_code == 200
        limit_file_size(server, 200_000)
        for number in range(200):
            answer = server.post({**join(f"user{number}"), "Padding": "x" * 5_000})
            if answer.status_code != 200:
                break
            taken += 1
        assert answer.status_code == 503
        assert 1 < taken < 200
        assert server.get("/livez").status_code == 200
        limit_file_size(server, resource.RLIM_INFINITY)
        last = server.post(join("last"))
        assert int(last.headers["Projector-Position"]) == taken + 1
        assert server.group("g", wait_for=taken + 1)["member_count"] == taken + 1
        assert not [line for line in server.raw_log if "Traceback" in line]
    assert [one.position for one in recorded(tmp_path / "events.db")] == list(range(1, taken + 2))


def test_the_commands_for_people_and_for_programs_say_the_same(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    fill(database, 1_000)
    assert run_cli(database, "replay").returncode == 0
    status = json.loads(run_cli(database, "status", "--json").stdout)
    assert (status["head"], status["lag_seconds"], status["quarantine"], status["complaints"]) == (1_000, 0, 0, [])
    assert status["projections"].keys() == {"membership", "profile", "fullness"}
    told = run_cli(database, "status").stdout
    assert f"members       {status['counts']['members']}" in told
    assert "membership    at 1000, 0 behind, 0 set aside" in told
    everything = [json.loads(line) for line in run_cli(database, "events").stdout.splitlines()]
    assert [event["position"] for event in everything] == list(range(1, 1_001))
    some = run_cli(database, "events", "--after", "500", "--group", "g5").stdout.splitlines()
    of_group = [event for event in everything if event["group_id"] == "g5" and event["position"] > 500]
    assert [json.loads(line) for line in some] == of_group


def test_a_reader_that_goes_away_early_and_a_database_that_is_not_there_make_no_traceback(tmp_path: Path) -> None:
    absent = run_cli(tmp_path / "nothing.db", "status")
    assert (absent.returncode, len(absent.stderr.splitlines())) == (2, 1)
    assert "PROJECTOR_DATABASE_URL" in absent.stderr
    assert run_cli(tmp_path / "nothing.db", "nonsense").returncode == 2
    assert run_cli(tmp_path / "nothing.db", "--version").stdout.startswith("projector ")


def test_events_are_unreadable_without_the_key_they_were_written_with_and_the_command_says_so(tmp_path: Path) -> None:
    key = {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher", "CIPHER_KEY": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    database = tmp_path / "events.db"
    with serving(database, COMPRESSOR_TOPIC="zlib", **key) as server:
        server.post(join("very-secret-user"))
        server.post(b'{"GroupId": "very-secret-user"')
    assert b"very-secret-user" not in database.read_bytes()
    assert "very-secret-user" in run_cli(database, "events", COMPRESSOR_TOPIC="zlib", **key).stdout
    done = run_cli(database, "events")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "CIPHER_KEY" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["quarantine", "show", "9" * 30],
        ["quarantine", "retry", "0"],
        ["events", "--after", "9" * 30],
        ["events", "--after", "one"],
        ["simulate", "--url", "http://127.0.0.1:1", "--repeats", "2"],
        ["simulate", "--url", "http://127.0.0.1:1", "--groups", "0"],
    ],
)
def test_a_wrong_argument_is_said_in_one_line_below_the_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = run_cli(tmp_path / "events.db", *arguments)
    assert done.returncode == 2
    assert f"{arguments[-1]!r} is not a " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_long_work_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    fill(tmp_path / "events.db", 1_000)
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        replay = [sys.executable, "-m", "projector", "replay"]
        done = subprocess.run(replay, env=environment(tmp_path / "events.db"), stdout=subprocess.PIPE, stderr=terminal)
        os.close(terminal)
        assert done.returncode == 0
        assert b"replay: 100%|" in screen.read(4096)


def test_what_an_older_version_could_not_read_becomes_an_event_when_it_is_retried(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    body = json.dumps(join("ann")).encode()
    stores = open_stores(Settings(database_path=str(database)))
    stores.quarantine.keep(
        body=body,
        reason="too new",
        command="Group.CallbackAfterNewMemberJoin",
        platform="iOS",
        received_at=1670574414123,
    )
    stores.events.close()
    with serving(database) as server:
        retried = run_cli(database, "quarantine", "retry", "1")
        assert (retried.returncode, retried.stdout) == (0, "1  is now the event at position 1\n")
        assert server.members("g", wait_for=1)["ann"]["joined_at"] == "2022-12-09T08:26:54.123Z"
        assert run_cli(database, "quarantine", "list").stdout == ""
        assert "released as the event at position 1" in run_cli(database, "quarantine", "show", "1").stdout
        assert run_cli(database, "quarantine", "retry", "1").returncode == 1


class Watched:
    """A projection that notes what it applies; of a version of its own, if given."""

    def __init__(self, projection: Any, applied: dict[str, list[int]], version: int | None = None) -> None:
        self.name, self.version = projection.name, version or projection.version
        self._projection, self._applied = projection, applied

    def apply(self, tables: Any, batch: Any) -> None:
        self._applied.setdefault(self.name, []).extend(one.position for one in batch)
        self._projection.apply(tables, batch)


def test_a_projection_of_a_new_version_is_built_again_alone(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    fill(database, 1_000)
    assert run_cli(database, "replay").returncode == 0
    applied: dict[str, list[int]] = {}
    settings = Settings(database_path=str(database))
    stores, read_model = open_stores(settings), open_read_model(settings)
    projections = [Watched(one, applied, one.version + (one.name == "profile")) for one in PROJECTIONS]
    subscription = Subscription(stores.events, read_model, projections)
    assert subscription.catch_up() == 1_000
    assert applied == {"profile": list(range(1, 1_001))}
    read_model.close()
    stores.events.close()


def test_while_processes_of_two_versions_run_neither_skips_nor_spoils_what_the_other_projects(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    fill(database, 1_000)
    settings = Settings(database_path=str(database))
    stores, read_models = open_stores(settings), [open_read_model(settings) for _ in range(2)]
    by_old: dict[str, list[int]] = {}
    by_new: dict[str, list[int]] = {}
    old = Subscription(stores.events, read_models[0], [Watched(one, by_old) for one in PROJECTIONS])
    assert old.catch_up() == 1_000
    new = Subscription(
        stores.events,
        read_models[1],
        [Watched(one, by_new, 2 if one.name == "profile" else None) for one in PROJECTIONS],
    )
    stores.events.append([Candidate(MembersJoined(group_id="g1", occurred_at=1, recorded_at=1, members=("u1",)), None)])
    assert old.catch_up() == 1_001
    assert new.catch_up() == 1_001
    assert by_old == {name: [*range(1, 1_001 + (name != "profile"))] for name in ("membership", "profile", "fullness")}
    assert by_new == {"profile": [*range(1, 1_002)]}
    for opened in (*read_models, stores.events):
        opened.close()
