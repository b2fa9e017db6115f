"""The simulator against a real server; it predicts the state without the code of the folds and of the oracle."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from projector.simulator.commands import RECORDED
from tests.kinds import live_file
from tests.running import environment, run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Server

TOKENS = {"PROJECTOR_CALLBACK_TOKEN": "in", "PROJECTOR_READ_TOKENS": "out,other"}
ROOT = Path(__file__).parents[2]
FULL = {"CallbackCommand": "Group.CallbackAfterGroupFull"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires signed callbacks, and tokens for queries."""
    with serving(tmp_path_factory.mktemp("single") / "events.db", **TOKENS) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares", [("0", "0", "0"), ("0.05", "0.05", "0.02"), ("0.5", "0.9", "0"), ("0.3", "0.3", "0.4"), ("1", "0", "1")]
)
def test_every_roster_comes_out_right_whatever_is_repeated_late_or_untimed(
    tmp_path: Path, shares: tuple[str, str, str]
) -> None:
    repeats, reordered, untimed = shares
    with serving(tmp_path / "events.db", **TOKENS) as server:
        done = run_cli(
            tmp_path / "events.db",
            *("simulate", "--url", server.url, "--callbacks", "6000", "--groups", "60", "--seed", repeats[-1]),
            *("--repeats", repeats, "--reordered", reordered, "--untimed", untimed),
            **TOKENS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "60 groups checked, no mismatches" in done.stdout
        assert re.search(r"simulate: \d+ of \d+ callbacks", done.stderr), "plain lines where there is no terminal"
        check = run_cli(tmp_path / "events.db", "replay", "--check")
        assert (check.returncode, "matches the history" in check.stdout) == (0, True)


def test_a_roster_that_is_wrong_is_found(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        arguments = ("simulate", "--url", server.url, "--callbacks", "300", "--groups", "5")
        assert run_cli(tmp_path / "events.db", *arguments).returncode == 0
        with sqlite3.connect(live_file(tmp_path / "events.db")) as connection:
            for number, change in enumerate(("INSERT", "UPDATE OF evidence")):
                spoil = "BEGIN UPDATE groups SET member_count = 77; END"
                connection.execute(f"CREATE TRIGGER spoil{number} AFTER {change} ON groups {spoil}")
        connection.close()
        done = run_cli(tmp_path / "events.db", *arguments, "--seed", "2")
        assert done.returncode == 1
        assert "member_count is 77" in done.stdout


def test_groups_of_other_origin_are_not_mixed_with_simulated_ones_unless_that_is_asked_for(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        arguments = ("simulate", "--url", server.url, "--callbacks", "30", "--groups", "9")
        for seed in "12":
            assert run_cli(database, *arguments, "--seed", seed).returncode == 0
        position = int(server.post(FULL | {"GroupId": "@TGS#2J4SZEAEL"}).headers["Projector-Position"])
        refused = run_cli(database, *arguments)
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
        assert [word for word in ("@TGS#2J4SZEAEL", "--into-existing") if word not in refused.stderr] == []
        assert server.post(FULL | {"GroupId": "g"}).headers["Projector-Position"] == str(position + 1)
        assert run_cli(database, *arguments, "--into-existing", "--seed", "3").returncode == 0


def test_while_an_event_is_not_projected_it_is_not_known_whether_there_are_other_groups(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database, "--only", "projections"):
        pass
    with serving(database, "--only", "callbacks") as receiver, serving(database, "--only", "queries") as queries:
        receiver.post(FULL | {"GroupId": "real"})
        arguments = ("simulate", "--url", receiver.url, "--callbacks", "30", "--groups", "3")
        assert "set --queries-url" in run_cli(database, *arguments).stderr
        refused = run_cli(database, *arguments, "--queries-url", queries.url)
        assert (refused.returncode, "did not reach 1" in refused.stderr) == (2, True), refused.stderr


def test_a_simulation_checks_roles_at_different_addresses(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database, "--queries-address", "127.0.0.1:0", **TOKENS) as server:
        receiver = server.logged(0, event="serving")[0]["callbacks_address"]
        arguments = ("--url", receiver, "--queries-url", server.url, "--callbacks", "100", "--groups", "4")
        done = run_cli(database, "simulate", *arguments, **TOKENS)
        assert (done.returncode, "4 groups checked, no mismatches" in done.stdout) == (0, True), done.stderr


def test_a_simulation_stops_at_the_first_refusal_and_quotes_its_reason(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_CALLBACK_TOKEN="right") as server:
        arguments = ("simulate", "--url", server.url, "--connections", "1")
        done = run_cli(tmp_path / "events.db", *arguments, PROJECTOR_CALLBACK_TOKEN="wrong")
        response = server.post(FULL, query={"Sign": "wrong", "RequestTime": str(int(time.time()))})
    assert (done.returncode, done.stdout.startswith("1 callbacks in ")) == (1, True)
    assert done.stderr.splitlines()[-1].endswith(f"with status 403: {response.json()['ErrorInfo']}")


def test_the_same_seed_gives_the_same_counts_over_any_number_of_connections(tmp_path: Path) -> None:
    counts = []
    for number in ("1", "16"):
        with serving(tmp_path / f"{number}.db") as server:
            arguments = ("--callbacks", "600", "--groups", "30", "--untimed", "0.5", "--repeats", "0.3")
            done = run_cli(tmp_path, "simulate", "--url", server.url, "--connections", number, *arguments)
            assert done.returncode == 0, done.stderr
            counts.append(done.stdout.splitlines()[1:])
    assert counts[0] == counts[1]


@pytest.mark.parametrize("command", RECORDED)
def test_a_callback_of_any_command_can_be_sent_alone(server: Server, command: str) -> None:
    group = f"a/{command}"
    arguments = ("simulate", "--url", server.url, "--send", command, "--group", group, "--user", "ann", "bob")
    done = run_cli(Path("unused"), *arguments, **TOKENS)
    request, body, status, response = done.stdout.splitlines()
    assert (done.returncode, response) == (0, '{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}')
    assert request.startswith(f"POST {server.url}/callback?CallbackCommand={command}&")
    assert "&Sign=" in request
    position = int(status.removeprefix("status 200, Projector-Position: "))
    history, token = f"{server.url}/v1/events?after={position - 1}&limit=1", {"Authorization": "Bearer out"}
    (event,) = server.client.get(history, headers=token).json()["events"]
    assert (event["group_id"], event["callback"]) == (group, json.loads(body))
    assert f"{server.url}/v1/groups/a%2F{command}?wait_for={position}" in done.stderr


def test_a_single_callback_that_is_refused_is_shown_with_the_reason(server: Server) -> None:
    done = run_cli(
        Path("unused"), "simulate", "--url", server.url, "--send", RECORDED[0], "--group", "g", "--user", "a"
    )
    assert done.returncode == 1
    assert "\nstatus 403\n" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["ErrorInfo"]


@pytest.mark.parametrize(
    "wrong",
    ["--send nonsense --group g", f"--send {RECORDED[0]} --group g", f"--send {RECORDED[0]} --user u", "--group g"],
)
def test_options_that_make_no_single_callback_are_refused_with_the_usage(wrong: str) -> None:
    done = run_cli(Path("unused"), "simulate", *wrong.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr.splitlines()[-1]


def test_an_address_where_nothing_answers_is_one_line(tmp_path: Path) -> None:
    for address, message in (
        ("http://127.0.0.1:1", "cannot connect to http://127.0.0.1:1"),
        ("nonsense", "not an address"),
    ):
        done = run_cli(tmp_path / "events.db", "simulate", "--url", address)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_demo_goes_on_serving_at_the_addresses_it_prints_until_ctrl_c() -> None:
    command = [sys.executable, ROOT / "scripts" / "demo.py", "--keep"]
    settings = environment(Path("unused"), PROJECTOR_LOG_FORMAT="console", PROJECTOR_LOG_LEVEL="ERROR")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings, start_new_session=True) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout.readline, "")
        assert any(line.startswith("Still serving") for line in lines)
        for _ in range(4):
            assert httpx2.get(next(lines).strip()).status_code == 200
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
        assert demo.wait(30) == 0


def test_the_port_of_make_run_is_that_of_the_server_and_of_the_commands_to_try() -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PORT")}
    for arguments, port in (((), "8000"), (("PORT=9000",), "9000")):
        dry = ["make", "-C", ROOT, "--dry-run", "--assume-old=.venv/run", "run", *arguments]
        printed = subprocess.run(dry, capture_output=True, text=True, check=True, env=clean).stdout
        assert f"serve --port {port}\n" in printed
        hello = subprocess.run([ROOT / "scripts" / "hello", port], capture_output=True, text=True, check=True).stdout
        assert hello.count(f"http://127.0.0.1:{port}") == 3


@pytest.mark.slow
def test_the_demo_shows_a_roster() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py"], capture_output=True, text=True, env=environment(Path("unused"))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 groups checked, no mismatches" in done.stdout
    assert re.search(r" members\n( +\S.* since \d{4}-.*\n){3,}", done.stdout)
