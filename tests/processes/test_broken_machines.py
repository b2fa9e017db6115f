"""A disk that fails or forgets, a clock that jumps, no files left: what was acknowledged stays, the rest is said."""

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
    """A disk of which chosen calls on chosen files fail, for processes that have its settings."""

    def __init__(self, folder: Path) -> None:
        self._control = folder / "failing"
        library = folder / "failing_disk.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "failing_disk.c", "-ldl"], check=True)
        self.settings = {"LD_PRELOAD": str(library), "FAILING_DISK": str(self._control)}

    @contextlib.contextmanager
    def failing(self, calls: str, error: int, part: str) -> Iterator[None]:
        fresh = self._control.with_suffix(".new")
        fresh.write_text(f"{calls} {error} {part}")
        fresh.rename(self._control)
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
    ids=["write", "fsync", "everything", "read-only"],
)
def test_while_the_disk_fails_callbacks_are_refused_and_with_the_disk_back_it_goes_on(
    tmp_path: Path, disk: FailingDisk, calls: str, error: int
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED, may_refuse=True)
    with serving(database, **disk.settings) as server:
        with pouring(server, ledger=ledger, senders=4):
            ledger.wait_for(answers=60)
            with disk.failing(calls, error, "events.db"):
                ledger.wait_for(refusals=12)
                assert server.get("/livez").status_code == 200
            ledger.wait_for(answers=60)
        assert {status for status, _ in ledger.refused} == {503}
        ledger.assert_kept(history(database))
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
    assert run_cli(database, "verify").returncode == 0


def test_with_a_spool_on_another_disk_a_disk_that_fails_loses_nobody(tmp_path: Path, disk: FailingDisk) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database, PROJECTOR_SPOOL_PATH=str(tmp_path / "spool"), **disk.settings) as server:
        with pouring(server, ledger=ledger, senders=4):
            ledger.wait_for(answers=60)
            with disk.failing("write,fsync", errno.EIO, "events.db"):
                ledger.wait_for(answers=60)
            ledger.wait_for(answers=60)
        until(lambda: server.get("/readyz").json()["spool"]["events"] == 0, of=server)
        ledger.assert_kept(history(database))
        assert ledger.spooled


def test_on_a_disk_that_cannot_be_written_to_the_start_ends_with_one_line(tmp_path: Path, disk: FailingDisk) -> None:
    with disk.failing("open", errno.EROFS, "events.db"):
        done = run_cli(tmp_path / "events.db", "serve", **disk.settings)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def overwrite(file: Path, at: int, junk: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(junk)


def test_a_file_that_is_no_database_is_said_to_be_none_in_one_line(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 50), SEED)
    overwrite(database, 0, b"rubbish" * 100)
    for command in ("serve", "verify", "status", "replay"):
        done = run_cli(database, command)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "not a database" in done.stderr


def test_a_page_that_is_damaged_is_found_and_nothing_ends_in_a_traceback(tmp_path: Path) -> None:
    prepared = tmp_path / "events.db"
    write(prepared, range(1, 2_001), SEED)
    with closing(sqlite3.connect(prepared)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages, rng = prepared.stat().st_size // 4096, random.Random(SEED)
    found = 0
    for turn in range(6):
        database = copied(prepared, tmp_path / f"damaged {turn}")
        overwrite(database, rng.randrange(1, pages) * 4096, rng.randbytes(4096))
        verified = run_cli(database, "verify", "--log-only")
        found += verified.returncode != 0
        assert "Traceback" not in verified.stderr
    assert found == 6


def test_of_a_log_that_lost_its_end_what_is_left_is_served_and_the_rest_is_projected_no_longer(tmp_path: Path) -> None:
    prepared, rng, cuts = tmp_path / "events.db", random.Random(SEED), 6
    ledger = Ledger(SEED)
    with serving(prepared) as server, pouring(server, ledger=ledger, senders=4):
        ledger.wait_for(answers=150)
        server.kill()
    whole = history(copied(prepared, tmp_path / "whole"))
    for turn in range(cuts):
        database = copied(prepared, tmp_path / f"cut {turn}")
        log = Path(f"{database}-wal")
        os.truncate(log, rng.randrange(log.stat().st_size))
        with serving(database) as server:
            left = history(database)
            assert left == whole[: len(left)]
            until(lambda: server.get("/readyz").status_code == 200, of=server)
            assert_served_as_recorded(server, database)
            assert server.post(callback(10**6 + turn, SEED)).headers["Projector-Position"] == str(len(left) + 1)
        assert run_cli(database, "verify").returncode == 0
        shutil.rmtree(database.parent)


class WrongClock:
    """The clock of processes that have its settings."""

    def __init__(self, folder: Path) -> None:
        self._wrong_by = folder / "wrong by"
        self.settings = {"PYTHONPATH": str(HERE / "clock"), "WRONG_BY": str(self._wrong_by)}

    def jump(self, seconds: int) -> None:
        fresh = self._wrong_by.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self._wrong_by)


def test_a_clock_that_jumps_back_an_hour_loses_and_doubles_nothing(tmp_path: Path) -> None:
    database, ledger, clock = tmp_path / "events.db", Ledger(SEED), WrongClock(tmp_path)
    with serving(database, **clock.settings) as server:
        with pouring(server, ledger=ledger, senders=4):
            for seconds in (0, -HOUR_S, HOUR_S, 0):
                clock.jump(seconds)
                ledger.wait_for(answers=40)
        recorded = history(database)
        ledger.assert_kept(recorded)
        received = [one.event.recorded_at for one in recorded]
        assert max(received) - min(received) > 1.9 * HOUR_S * 1_000, "the clock did not jump"
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
    assert run_cli(database, "verify").returncode == 0


def test_a_clock_that_is_wrong_refuses_every_signature_and_says_so_until_it_is_right(tmp_path: Path) -> None:
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
    def about(command: str, at_ms: int, **more: Any) -> dict[str, Any]:
        return {"CallbackCommand": f"Group.CallbackAfter{command}", "EventTime": at_ms, "GroupId": "g", **more}

    now_ms = time.time_ns() // 1_000_000
    ann = [{"Member_Account": "ann"}]
    with serving(tmp_path / "events.db") as server:
        server.post(about("GroupInfoChanged", now_ms + YEAR_MS, Name="from the future"))
        server.post(about("NewMemberJoin", now_ms + YEAR_MS, NewMemberList=ann))
        now_ms = time.time_ns() // 1_000_000 + 10
        server.post(about("GroupInfoChanged", now_ms, Name="of today"))
        last = server.post(about("MemberExit", now_ms, ExitMemberList=ann)).headers["Projector-Position"]
        assert server.group("g", wait_for=int(last))["name"] == "of today"
        assert server.members("g") == {}
        assert "projector_future_event_times_total 2.0" in server.get("/metrics").text


def test_without_files_left_it_takes_nobody_new_serves_whom_it_has_and_goes_on_when_there_are_some(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database) as server, ExitStack() as crowd:
        host, port = server.url.removeprefix("http://").split(":")
        assert server.post(callback(0, SEED)).status_code == 200
        there = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (there + 8, there + 8))
        for _ in range(30):
            crowd.enter_context(socket.create_connection((host, int(port)), timeout=30))
        until(lambda: len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) >= there + 8, of=server)
        assert server.post(callback(1, SEED)).status_code == 200, "it has this connection already"
        crowd.close()
        with pouring(server, ledger=ledger, senders=2):
            ledger.wait_for(answers=20)
        assert server.get("/readyz").status_code == 200
        assert len(history(database)) == 2 + len({*ledger.acknowledged} - {0, 1})
