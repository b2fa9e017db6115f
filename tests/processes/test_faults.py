"""Locks and full disks: callbacks are refused or recorded, nothing is half stored, and service resumes by itself."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from projector.bootstrap import open_stores
from projector.event_store import StoreUnavailable
from tests.kinds import settings
from tests.processes.databases import assert_served_as_recorded, checkpoints, history, read_model, write
from tests.processes.traffic import Ledger, callback, candidates, pouring
from tests.processes.waiting import until
from tests.running import assert_no_traceback, run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.running import Server

pytestmark = pytest.mark.slow  # every test here starts processes

SEED = 20240229


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Lock a SQLite file, so that no other process can write to it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def full_disk(server: Server, size: int) -> Iterator[None]:
    """Let no file of the server grow beyond a size, as on a full disk."""
    for pid in (server.process.pid, *server.pids().values()):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    yield
    for pid in (server.process.pid, *server.pids().values()):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def quarantined(server: Server) -> int:
    lines = server.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("projector_quarantine "))))


def test_while_another_process_holds_the_store_callbacks_are_refused_with_retry_after_and_then_accepted(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED, may_refuse=True)
    with serving(database) as server:
        with pouring(server, ledger=ledger):
            ledger.wait_for(acknowledged=100)
            with locked(database):
                ledger.wait_for(refusals=8)
                assert server.post(b"not JSON").status_code == 503, "it is not stored"
                assert server.get("/livez").status_code == 200
                assert server.get("/v1/groups").status_code == 200
            ledger.wait_for(acknowledged=100)
        assert {*ledger.refused} == {(503, "1")}
        assert quarantined(server) == 0
        assert server.post(b"not JSON").status_code == 400
        assert quarantined(server) == 1
        ledger.assert_kept(history(database))
        ledger.assert_nothing_more(history(database))
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)


def test_while_another_process_holds_the_read_model_callbacks_are_accepted_and_readiness_gives_the_reason(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database) as server:
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        with locked(read_model(database)):
            with pouring(server, ledger=ledger, senders=2):
                ledger.wait_for(acknowledged=20)
            until(lambda: server.get("/readyz").status_code == 503, of=server)
            (complaint,) = server.get("/readyz").json()["complaints"]
            assert complaint == "projections are halted: SQLite: database is locked"
            response = server.get("/v1/groups")
            assert (response.json()["groups"], response.headers["Projector-Position"]) == ([], "0")
            assert f'projector_lag_events{{projection="groups"}} {len(history(database))}.0' in (
                server.get("/metrics").text
            )
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        ledger.assert_kept(history(database))
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)


def test_on_a_full_disk_callbacks_are_refused_nothing_is_half_stored_and_service_resumes_with_space(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED, may_refuse=True)
    with serving(database) as server:
        with pouring(server, ledger=ledger):
            ledger.wait_for(acknowledged=50)
            with full_disk(server, 300_000):
                ledger.wait_for(refusals=20)
                assert server.get("/livez").status_code == 200
                unreadable = server.post(b"not JSON").status_code
                assert unreadable in (400, 503)
                assert quarantined(server) == (unreadable == 400)
            ledger.wait_for(acknowledged=50)
        assert {*ledger.refused} == {(503, "1")}
        recorded = history(database)
        ledger.assert_kept(recorded)
        ledger.assert_nothing_more(recorded)
        until(lambda: {*checkpoints(database).values()} == {len(recorded)}, of=server)
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
        assert server.stop() == 0
    assert run_cli(database, "replay", "--check").returncode == 0


def test_with_a_spool_a_store_that_is_locked_or_full_refuses_nothing_and_has_every_callback_afterwards(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    write(database, range(100_001, 103_001), SEED)
    with serving(database, PROJECTOR_SPOOL_PATH=str(tmp_path / "spool")) as server:
        with pouring(server, ledger=ledger):
            ledger.wait_for(acknowledged=50)
            for fault in (locked(database), full_disk(server, database.stat().st_size)):
                spooled = len(ledger.spooled)
                with fault:
                    ledger.wait_for(acknowledged=100)
                    until(lambda spooled=spooled: len(ledger.spooled) > spooled, of=server)
            ledger.wait_for(acknowledged=50)
        assert ledger.refused == []
        until(lambda: server.get("/readyz").json()["spool"]["events"] == 0, of=server)
        poured = [recorded for recorded in history(database) if recorded.position > 3_000]
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
    ledger.sent |= {*range(100_001, 103_001)}
    ledger.assert_kept(history(database))
    assert len(poured) >= 200


def test_when_only_the_read_model_has_no_space_callbacks_are_accepted_and_it_catches_up_with_space(
    tmp_path: Path,
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 3_001), SEED)
    with serving(database, "--only", "callbacks") as receiver, serving(database, "--only", "projections") as worker:
        until(lambda: worker.get("/readyz").status_code == 200, of=worker)
        with full_disk(worker, 200_000):
            write(database, range(3_001, 6_001), SEED)
            until(lambda: "projections are halted: SQLite: " in worker.get("/readyz").text, of=worker)
            assert worker.get("/readyz").status_code == 503
            assert receiver.post(callback(6_001, SEED)).headers["Projector-Position"] == "6001"
            assert max(checkpoints(database).values(), default=0) < 6_001
        until(lambda: {*checkpoints(database).values()} == {6_001}, of=worker)
        until(lambda: worker.get("/readyz").status_code == 200, of=worker)
        assert_no_traceback(worker)
    with serving(database, "--only", "queries") as server:
        assert_served_as_recorded(server, database)


def limit_pages(store: Any, more: int) -> None:
    """Let the store's file grow by so many pages only."""
    with store._recorder.datastore.get_connection(commit=True) as connection, connection.cursor() as cursor:
        pages = cursor.execute("PRAGMA page_count").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages + more}")


def test_a_batch_that_does_not_fit_is_refused_as_a_whole_and_fits_when_there_is_space(tmp_path: Path) -> None:
    store = open_stores(settings(tmp_path / "events.db")).events
    store.append(candidates(range(1, 11), SEED))
    limit_pages(store, 3)
    batch = candidates(range(5, 1_001), SEED)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="database or disk is full"):
            store.append(batch)
        assert store.head() == 10
    limit_pages(store, 100_000)
    appended = store.append(batch)
    assert [result.position for result in appended] == [5, 6, 7, 8, 9, 11, *range(12, 1_002)]
    assert [result.repeated for result in appended] == [True] * 5 + [False] + [False] * 990
    store.close()
