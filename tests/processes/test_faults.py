"""Locks and full disks: callbacks are refused honestly or taken, nothing is half kept, and all recovers by itself."""

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
def held(file: Path) -> Iterator[None]:
    """Keep everybody else from writing to a SQLite file."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def full_disk(server: Server, size: int) -> Iterator[None]:
    """Let no file of the server grow beyond a size, as on a disk that is full."""
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    yield
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def quarantined(server: Server) -> int:
    lines = server.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("projector_quarantine "))))


def test_while_another_holds_the_store_callbacks_are_refused_to_be_sent_again_and_then_it_goes_on(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED, may_refuse=True)
    with serving(database) as server:
        with pouring(server, ledger=ledger):
            ledger.wait_for(answers=100)
            with held(database):
                ledger.wait_for(refusals=8)
                assert server.post(b"no JSON").status_code == 503, "what cannot be kept must not look as if it were"
                assert server.get("/livez").status_code == 200
                assert server.get("/v1/groups").status_code == 200
            ledger.wait_for(answers=100)
        assert {*ledger.refused} == {(503, "1")}
        assert quarantined(server) == 0
        assert server.post(b"no JSON").status_code == 400
        assert quarantined(server) == 1
        ledger.assert_kept(history(database))
        ledger.assert_nothing_more(history(database))
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)


def test_while_another_holds_the_read_model_callbacks_are_taken_and_readiness_says_why_nothing_shows(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database) as server:
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        with held(read_model(database)):
            with pouring(server, ledger=ledger, senders=2):
                ledger.wait_for(answers=20)
            until(lambda: server.get("/readyz").status_code == 503, of=server)
            (complaint,) = server.get("/readyz").json()["complaints"]
            assert complaint == "projections are halted: SQLite: database is locked"
            shown = server.get("/v1/groups")
            assert (shown.json()["groups"], shown.headers["Projector-Position"]) == ([], "0")
            assert f'projector_lag_events{{projection="membership"}} {len(history(database))}.0' in (
                server.get("/metrics").text
            )
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        ledger.assert_kept(history(database))
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)


def test_on_a_full_disk_callbacks_are_refused_nothing_is_half_kept_and_with_room_again_it_goes_on(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED, may_refuse=True)
    with serving(database) as server:
        with pouring(server, ledger=ledger):
            ledger.wait_for(answers=50)
            with full_disk(server, 300_000):
                ledger.wait_for(refusals=20)
                assert server.get("/livez").status_code == 200
                unreadable = server.post(b"no JSON").status_code
                assert unreadable in (400, 503)
                assert quarantined(server) == (unreadable == 400)
            ledger.wait_for(answers=50)
        assert {*ledger.refused} == {(503, "1")}
        recorded = history(database)
        ledger.assert_kept(recorded)
        ledger.assert_nothing_more(recorded)
        until(lambda: {*checkpoints(database).values()} == {len(recorded)}, of=server)
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
        assert server.stop() == 0
    assert run_cli(database, "replay", "--check").returncode == 0


def test_with_a_spool_a_store_that_is_locked_or_full_refuses_nothing_and_has_it_all_afterwards(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    write(database, range(100_001, 103_001), SEED)
    with serving(database, PROJECTOR_SPOOL_PATH=str(tmp_path / "spool")) as server:
        with pouring(server, ledger=ledger):
            ledger.wait_for(answers=50)
            for trouble in (held(database), full_disk(server, database.stat().st_size)):
                spooled = len(ledger.spooled)
                with trouble:
                    ledger.wait_for(answers=100)
                    until(lambda spooled=spooled: len(ledger.spooled) > spooled, of=server)
            ledger.wait_for(answers=50)
        assert ledger.refused == []
        until(lambda: server.get("/readyz").json()["spool"]["events"] == 0, of=server)
        found = [one for one in history(database) if one.position > 3_000]
        assert_served_as_recorded(server, database)
        assert_no_traceback(server)
    ledger.sent |= {*range(100_001, 103_001)}
    ledger.assert_kept(history(database))
    assert len(found) >= 200


def test_when_only_the_read_model_has_no_room_callbacks_are_taken_and_with_room_again_it_catches_up(
    tmp_path: Path,
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 3_001), SEED)
    with serving(database, "--only", "callbacks") as receiver, serving(database, "--only", "projections") as projecting:
        with full_disk(projecting, 200_000):
            write(database, range(3_001, 6_001), SEED)
            until(lambda: "projections are halted: SQLite: " in projecting.get("/readyz").text, of=projecting)
            assert projecting.get("/readyz").status_code == 503
            assert receiver.post(callback(6_001, SEED)).headers["Projector-Position"] == "6001"
            assert max(checkpoints(database).values(), default=0) < 6_001
        until(lambda: {*checkpoints(database).values()} == {6_001}, of=projecting)
        until(lambda: projecting.get("/readyz").status_code == 200, of=projecting)
        assert_no_traceback(projecting)
    with serving(database, "--only", "queries") as answering:
        assert_served_as_recorded(answering, database)


def limit_pages(store: Any, more: int) -> None:
    """Let the store's file grow by so many pages and no further."""
    with store._recorder.datastore.get_connection(commit=True) as connection, connection.cursor() as cursor:
        pages = cursor.execute("PRAGMA page_count").fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages + more}")


def test_a_batch_that_does_not_fit_is_refused_whole_and_fits_when_there_is_room(tmp_path: Path) -> None:
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
    assert [one.position for one in appended] == [5, 6, 7, 8, 9, 11, *range(12, 1_002)]
    assert [one.repeated for one in appended] == [True] * 5 + [False] + [False] * 990
    store.close()
