"""Failing disks, damaged files, wrong clocks, no files left: acknowledged callbacks stay, and errors are reported."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import socket
import sqlite3
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kinds import copied
from tests.processes.databases import assert_served_as_recorded, history, write
from tests.processes.traffic import Ledger, callback, pouring
from tests.processes.waiting import until
from tests.running import assert_no_traceback, run_cli, serving, signature

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow  # every test here starts processes

SEED = 20241225
HERE = Path(__file__).parent
HOUR_S = 3_600
YEAR_MS = 365 * 24 * HOUR_S * 1_000


class FailingDisk:
    """A disk on which chosen calls on chosen files fail, for processes with its settings."""

    def __init__(self, folder: Path) -> None:
        self._control = folder / "failing"
        library = folder / "failing_disk.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "failing_disk.c", "-ldl"], check=True)
        self.settings = {"LD_PRELOAD": str(library), "FAILING_DISK": str(self._control)}

    @contextlib.contextmanager
    def failing(self, calls: str, error: int, path_part: str) -> Iterator[None]:
        new = self._control.with_suffix(".new")
        new.write_text(f"{calls} {error} {path_part}")
        new.rename(self._control)
        yield
        self._control.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> FailingDisk:
    folder = tmp_path / "disk"
    folder.mkdir()
    return FailingDisk(folder)


@pytest.mark.parametrize(
    ("calls", "error"),
    [("write", errno.EIO), ("fsync", errno.EIO), ("read,write,fsync", errno.EIO), ("open,write,fsync", errno.EROFS)],
    ids=["write", "fsync", "all calls", "read-only"],
)
def test_while_the_disk_fails_callbacks_are_refused_and_service_resumes_when_it_works_again(
    tmp_path: Path, disk: FailingDisk, calls: str, error: int
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED, may_refuse=True)
    with serving(database, **disk.settings) as server:
        with pouring(server, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=60)
            with disk.failing(calls, error, "events.db"):
                ledger.wait_for(refusals=12)
                assert server.get("/livez").status_code == 200
            ledger.wait_for(acknowledged=60)
        assert {status for status, _ in ledger.refused} == {503}
        ledger.assert_kept(history(database))
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
    assert run_cli(database, "verify").returncode == 0


def test_with_a_spool_on_another_disk_a_failing_disk_loses_no_callback(tmp_path: Path, disk: FailingDisk) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database, PROJECTOR_SPOOL_PATH=str(tmp_path / "spool"), **disk.settings) as server:
        with pouring(server, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=60)
            with disk.failing("write,fsync", errno.EIO, "events.db"):
                ledger.wait_for(acknowledged=60)
            ledger.wait_for(acknowledged=60)
        until(lambda: server.get("/readyz").json()["spool"]["events"] == 0, of=server)
        ledger.assert_kept(history(database))
        assert ledger.spooled


def test_on_a_read_only_disk_the_start_fails_with_one_line(tmp_path: Path, disk: FailingDisk) -> None:
    with disk.failing("open", errno.EROFS, "events.db"):
        done = run_cli(tmp_path / "events.db", "serve", **disk.settings)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


def test_a_file_that_is_no_database_is_reported_in_one_line(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 50), SEED)
    overwrite(database, 0, b"garbage" * 100)
    for command in ("serve", "verify", "status", "replay"):
        done = run_cli(database, command)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "not a database" in done.stderr


def test_a_damaged_page_is_detected_without_a_traceback(tmp_path: Path) -> None:
    prepared = tmp_path / "events.db"
    write(prepared, range(1, 2_001), SEED)
    with closing(sqlite3.connect(prepared)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages, rng = prepared.stat().st_size // 4096, random.Random(SEED)
    detected = 0
    for turn in range(6):
        database = copied(prepared, tmp_path / f"damaged {turn}")
        overwrite(database, rng.randrange(1, pages) * 4096, rng.randbytes(4096))
        verified = run_cli(database, "verify", "--log-only")
        detected += verified.returncode != 0
        assert "Traceback" not in verified.stderr
    assert detected == 6


def test_after_a_log_lost_its_end_the_remaining_events_are_served_and_the_read_model_is_rebuilt(tmp_path: Path) -> None:
    prepared, rng, cuts = tmp_path / "events.db", random.Random(SEED), 6
    ledger = Ledger(SEED)
    with serving(prepared) as server, pouring(server, ledger=ledger, senders=4):
        ledger.wait_for(acknowledged=150)
        server.kill()
    whole = history(copied(prepared, tmp_path / "whole"))
    for turn in range(cuts):
        database = copied(prepared, tmp_path / f"cut {turn}")
        log = Path(f"{database}-wal")
        os.truncate(log, rng.randrange(log.stat().st_size))
        with serving(database) as server:
            remaining = history(database)
            assert remaining == whole[: len(remaining)]
            until(lambda: server.get("/readyz").status_code == 200, of=server)
            assert_served_as_recorded(server, database)
            assert server.post(callback(10**6 + turn, SEED)).headers["Projector-Position"] == str(len(remaining) + 1)
        assert run_cli(database, "verify").returncode == 0
        shutil.rmtree(database.parent)


class WrongClock:
    """The clock of processes with its settings."""

    def __init__(self, folder: Path) -> None:
        self._wrong_by = folder / "wrong by"
        self.settings = {"PYTHONPATH": str(HERE / "clock"), "WRONG_BY": str(self._wrong_by)}

    def jump(self, seconds: int) -> None:
        new = self._wrong_by.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._wrong_by)


def test_a_clock_that_jumps_back_an_hour_loses_nothing_and_records_nothing_twice(tmp_path: Path) -> None:
    database, ledger, clock = tmp_path / "events.db", Ledger(SEED), WrongClock(tmp_path)
    with serving(database, **clock.settings) as server:
        with pouring(server, ledger=ledger, senders=4):
            for seconds in (0, -HOUR_S, HOUR_S, 0):
                clock.jump(seconds)
                ledger.wait_for(acknowledged=40)
        recorded = history(database)
        ledger.assert_kept(recorded)
        received = [each.event.recorded_at for each in recorded]
        assert max(received) - min(received) > 1.9 * HOUR_S * 1_000, "the clock did not jump"
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
    assert run_cli(database, "verify").returncode == 0


def test_a_wrong_clock_refuses_every_signature_with_the_reason_until_it_is_right(tmp_path: Path) -> None:
    clock = WrongClock(tmp_path)

    def signed() -> dict[str, str]:
        now = int(time.time())
        return {"Sign": signature("token", now), "RequestTime": str(now)}

    with serving(tmp_path / "events.db", PROJECTOR_CALLBACK_TOKEN="token", **clock.settings) as server:
        assert server.post(callback(1, SEED), query=signed()).status_code == 200
        clock.jump(-HOUR_S)
        assert server.post(callback(2, SEED), query=signed()).status_code == 403
        (line,) = server.logged(0, result="refused")
        assert line["reason"] == "RequestTime is more than 60 s away from this server's clock"
        clock.jump(0)
        assert server.post(callback(2, SEED), query=signed()).status_code == 200


def test_a_time_a_year_ahead_does_not_freeze_a_group(tmp_path: Path) -> None:
    def body(command: str, at_ms: int, **more: Any) -> dict[str, Any]:
        return {"CallbackCommand": f"Group.CallbackAfter{command}", "EventTime": at_ms, "GroupId": "g", **more}

    now_ms = time.time_ns() // 1_000_000
    ann = [{"Member_Account": "ann"}]
    with serving(tmp_path / "events.db") as server:
        server.post(body("GroupInfoChanged", now_ms + YEAR_MS, Name="from the future"))
        server.post(body("NewMemberJoin", now_ms + YEAR_MS, NewMemberList=ann))
        now_ms = time.time_ns() // 1_000_000 + 10
        server.post(body("GroupInfoChanged", now_ms, Name="of today"))
        last = server.post(body("MemberExit", now_ms, ExitMemberList=ann)).headers["Projector-Position"]
        assert server.group("g", wait_for=int(last))["name"] == "of today"
        assert server.members("g") == {}
        assert "projector_future_event_times_total 2.0" in server.get("/metrics").text


def test_without_files_left_existing_connections_are_served_and_new_ones_once_there_are_files(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database) as server, ExitStack() as connections:
        host, port = server.url.removeprefix("http://").split(":")
        assert server.post(callback(0, SEED)).status_code == 200
        pid = server.pids()["callbacks"]
        open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files + 8, open_files + 8))
        for _ in range(30):
            connections.enter_context(socket.create_connection((host, int(port)), timeout=30))
        until(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) >= open_files + 8, of=server)
        assert server.post(callback(1, SEED)).status_code == 200, "this connection is already open"
        connections.close()
        with pouring(server, ledger=ledger, senders=2):
            ledger.wait_for(acknowledged=20)
        assert server.get("/readyz").status_code == 200
        assert len(history(database)) == 2 + len({*ledger.acknowledged} - {0, 1})
