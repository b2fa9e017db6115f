"""The log of a server: formats, levels, colours, and what is said once."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from projector import auto_rebuild
from projector.event_store import Candidate
from projector.logs import Condition
from tests.domain import facts as f
from tests.event_store.test_spool import forwarding
from tests.kinds import live_file
from tests.processes.databases import write
from tests.processes.waiting import until
from tests.running import Server, environment, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.slow  # most tests here start processes

UNKNOWN = {"PROJECTOR_SERVICE_HOST": "10.0.0.1"}
"""An unknown setting, which any command warns of."""


def reasons(server: Server, event: str) -> list[Any]:
    return [line.get("reason") for line in server.log if line["event"] == event]


def on_terminal(database: Path, **settings: str) -> bytes:
    """Run a command that logs on a terminal; return what is seen there."""
    ours, terminal = pty.openpty()
    with closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        command = [sys.executable, "-m", "projector", "status"]
        plain = {name: value for name, value in environment(database, **settings).items() if value}
        subprocess.run(command, env={**plain, "TERM": "xterm"}, stdout=subprocess.DEVNULL, stderr=terminal)
        os.close(terminal)
        return screen.read(4096)


def test_the_format_is_that_of_the_setting_or_fits_where_the_log_goes(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    assert run_cli(database, "status", **UNKNOWN).stderr.startswith('{"event": ')
    console = run_cli(database, "status", PROJECTOR_LOG_FORMAT="console", **UNKNOWN).stderr
    assert "[warning  ] ignoring an unknown setting" in console
    assert "\x1b" not in console
    assert b"\x1b[" in on_terminal(database, NO_COLOR="", **UNKNOWN)
    assert b"\x1b" not in on_terminal(database, NO_COLOR="1", **UNKNOWN)
    assert on_terminal(database, PROJECTOR_LOG_FORMAT="json", **UNKNOWN).startswith(b'{"event": ')


def test_nothing_below_the_level_is_logged(tmp_path: Path) -> None:
    quiet = run_cli(tmp_path / "events.db", "status", PROJECTOR_LOG_LEVEL="error", **UNKNOWN).stderr
    assert "unknown setting" not in quiet


@pytest.mark.parametrize("name", ["PROJECTOR_LOG_LEVEL", "PROJECTOR_LOG_FORMAT"])
def test_a_wrong_format_or_level_is_one_line(tmp_path: Path, name: str) -> None:
    done = run_cli(tmp_path / "events.db", "serve", "--port", "0", **{name: "loud"})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith(f"projector: {name} is 'loud'; set it to ")


class Lines:
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def warning(self, event: str, *, reason: str, **_: object) -> None:
        self.lines.append((event, reason))

    def info(self, event: str, *, repeated: int = 0, **_: object) -> None:
        self.lines.append((event, repeated))


def test_a_condition_is_logged_once_for_each_reason_and_its_end_with_the_number_of_repetitions() -> None:
    log = Lines()
    condition = Condition(log, begins="away", ends="back")
    condition.over()
    for _ in range(2):
        for reason in ("a", "a", "b", "a"):
            condition.met(reason)
        condition.over()
        condition.over()
    assert log.lines == [("away", "a"), ("away", "b"), ("back", 2)] * 2


def test_callbacks_rejected_for_the_same_reason_are_logged_once_and_then_counted(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_CALLBACK_TOKEN="secret") as server:
        for _ in range(5):
            assert server.post({"CallbackCommand": "Group.CallbackAfterGroupFull"}).status_code == 403
        server.logged(0, event="callback rejected")
        assert server.stop() == 0
    lines = [line for line in server.log if line["event"] == "callback rejected"]
    assert [line.get("repeated") for line in lines] == [None, 4]


def test_halted_projections_and_their_recovery_are_logged_once(tmp_path: Path) -> None:
    body = {"CallbackCommand": "Group.CallbackAfterGroupFull", "GroupId": "g"}
    with serving(tmp_path / "events.db") as server:
        server.logged(0, event="took the lead; projecting")
        with closing(sqlite3.connect(live_file(tmp_path / "events.db"), isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            server.post(body)
            server.logged(0, event="projections are halted")
            lock.execute("ROLLBACK")
        server.logged(0, event="projections are running again")
    assert reasons(server, "projections are halted") == ["SQLite: database is locked"]


def test_a_rebuild_that_fails_again_and_again_is_logged_once_and_its_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, attempts, is_rebuilt = Lines(), count(1), threading.Event()
    monkeypatch.setattr(auto_rebuild, "log", log)
    monkeypatch.setattr(auto_rebuild, "_POLL_S", 0.01)

    def reasons_to_rebuild() -> list[str]:
        attempt = next(attempts)
        if attempt == 3:
            write(tmp_path / "events.db", range(1, 11), 1)  # there was no such file
        if attempt == 4:
            is_rebuilt.set()
        return [] if is_rebuilt.is_set() else ["no read model"]

    rebuild = auto_rebuild.AutoRebuild(reasons_to_rebuild, environment(tmp_path / "events.db"), lambda: None)
    rebuild.start()
    assert is_rebuilt.wait(60)
    rebuild.stop()
    assert log.lines == [
        ("rebuilding the read model", 0),
        ("rebuilding the read model failed; trying again", "exit status 2"),
        ("the read model is rebuilt", 1),
    ]


def test_an_unavailable_store_is_logged_once_until_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Lines()
    monkeypatch.setattr("projector.event_store.store_and_forward.log", log)
    with forwarding(tmp_path) as (both, moody, _):
        moody.away = True
        for at in range(1, 4):
            both.append([Candidate(f.joined(at, "ann"), None)])
        assert log.lines == [("database unavailable; spooling callbacks", "away")]
        moody.away = False
        both.append([Candidate(f.joined(4, "ann"), None)])
        assert log.lines[1] == ("database available again", 2)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_taking_the_lead_and_standing_by_are_logged(tmp_path: Path, postgresql: PostgreSQL) -> None:
    database = tmp_path / "events.db"
    with serving(database, "--only", "projections") as first:
        first.logged(0, event="took the lead; projecting")
        with serving(database, "--only", "projections") as second:
            second.logged(0, event="standing by; another worker projects")
            first.kill()
            second.logged(0, event="took the lead; projecting")
            until(lambda: second.get("/readyz").status_code == 200, of=second)
