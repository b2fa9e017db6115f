"""Machines vanish from the network: every packet is dropped, and no connection is closed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.kinds import point
from tests.postgresql import running
from tests.processes.campaign import rounds, summary
from tests.processes.databases import assert_served_as_recorded, checkpoints, history, spooled
from tests.processes.test_failover import PROMOTE, STOP_WAITING, execute
from tests.processes.traffic import Ledger, pouring
from tests.processes.waiting import until
from tests.running import assert_no_traceback, serving
from tests.system.network import attached

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running import Server

pytestmark = [
    pytest.mark.system,  # network namespaces need root, iproute2 and iptables
    pytest.mark.slow,
    pytest.mark.usefixtures("kind"),
    pytest.mark.parametrize("kind", ["postgresql"], indirect=True),
]

SEED = 20261122
OUTAGE_S = rounds(12)
"""Longer than every time-out between a process and PostgreSQL; `ROUNDS=30` is half a minute."""

CLIENTS = 20


def seconds_until(holds: Callable[[], object], *, of: Server) -> str:
    started = time.monotonic()
    until(holds, of=of)
    return f"{time.monotonic() - started:.1f} s"


class Askers:
    """Clients that ask one question after another, and note how long each answer took."""

    def __init__(self, server: Server) -> None:
        self._url, self._stopping = f"{server.url}/v1/groups", threading.Event()
        self.answers: list[tuple[float, int]] = []

    def __enter__(self) -> Askers:
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._asking = [self._threads.submit(self._ask) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._threads.shutdown()
        assert [asking.result() for asking in self._asking] == [None] * CLIENTS

    @property
    def refused(self) -> int:
        return sum(status == 503 for _, status in self.answers)

    @property
    def slowest(self) -> float:
        return max(seconds for seconds, _ in self.answers)

    def _ask(self) -> None:
        with httpx2.Client(timeout=60) as client:
            while not self._stopping.is_set():
                started = time.monotonic()
                status = client.get(self._url).status_code
                self.answers.append((time.monotonic() - started, status))
                if status != 200:
                    self._stopping.wait(0.1)  # as a client that has some patience


def test_postgresql_vanishes_under_load_and_everything_goes_on_when_it_is_back(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with attached() as machine, running(machine=machine) as postgresql:
        point(database, postgresql.database("vanishing"))
        with (
            serving(database, "--only", "callbacks") as receiver,
            serving(database, "--only", "projections") as worker,
            serving(database, "--only", "projections") as standby,
            serving(database, "--only", "queries") as queries,
            pouring(receiver, ledger=ledger, senders=2),
        ):
            servers = receiver, worker, queries
            ledger.wait_for(acknowledged=100)
            until(lambda: checkpoints(database), of=worker)
            with Askers(queries) as askers:
                with machine.vanished():
                    deadline = time.monotonic() + OUTAGE_S
                    while time.monotonic() < deadline:
                        ledger.wait_for(acknowledged=1)
                    assert receiver.get("/readyz").status_code == 503
                    assert standby.stop() == 0
                waiting = spooled(database)
                answered = seconds_until(lambda: queries.get("/v1/groups").status_code == 200, of=queries)
                emptied = seconds_until(lambda: spooled(database) == 0, of=receiver)
            ready = seconds_until(lambda: [s.get("/readyz").status_code for s in servers] == [200] * 3, of=queries)
            ledger.wait_for(acknowledged=100)
            ledger.enough.set()
        assert askers.refused > 5 * CLIENTS  # nobody waits for the others
        assert ledger.refused == []
        ledger.assert_kept(history(database))
        with serving(database, "--only", "queries") as queries:
            assert_served_as_recorded(queries, database)
        for server in servers:
            assert_no_traceback(server)
    summary(
        f"PostgreSQL away for {OUTAGE_S} s, {len(ledger.spooled)} of {ledger.posts} callbacks spooled;"
        f" slowest query {askers.slowest:.1f} s; afterwards queries answered within {answered},"
        f" the spool of {waiting} empty {emptied} later, all ready {ready} later"
    )


def test_a_workers_machine_vanishes_and_the_other_takes_over(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with attached() as machine, running("listen_addresses=*") as postgresql:
        point(database, postgresql.database("taken_over"))
        there = postgresql.url("taken_over").replace("127.0.0.1", machine.gateway)
        with (
            serving(database, "--only", "callbacks") as receiver,
            serving(database, "--only", "projections", inside=machine.inside, PROJECTOR_DATABASE_URL=there) as far,
            pouring(receiver, ledger=ledger, senders=2),
        ):
            until(lambda: min(checkpoints(database).values(), default=0) > 0, of=far)
            with serving(database, "--only", "projections") as near:
                ledger.wait_for(acknowledged=50)
                with machine.vanished():
                    started = time.monotonic()
                    head = len(history(database))
                    until(lambda: min(checkpoints(database).values()) > head + 10, of=near)
                    taken = time.monotonic() - started
                near.kill()
                started, head = time.monotonic(), len(history(database))
                until(lambda: min(checkpoints(database).values()) > head, of=far)
                back = time.monotonic() - started
            ledger.enough.set()
        assert ledger.refused == []
        ledger.assert_kept(history(database))
        with serving(database) as server:
            assert_served_as_recorded(server, database)
        assert_no_traceback(far)
    summary(f"the other worker took over after {taken:.1f} s; killed, the one that had vanished after {back:.1f} s")


def test_a_replica_vanishes_and_queries_are_refused_in_time_until_it_is_back(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with attached() as machine, running("listen_addresses=*") as primary:
        point(database, primary.database("replicated"))
        with (
            running(primary=primary, machine=machine) as replica,
            serving(database, "--only", "callbacks") as receiver,
            serving(database, "--only", "projections"),
            serving(database, "--only", "queries", PROJECTOR_QUERY_DATABASE_URL=replica.url("replicated")) as queries,
        ):
            with pouring(receiver, ledger=ledger, senders=2):
                ledger.wait_for(acknowledged=50)
                until(lambda: queries.get("/v1/groups").status_code == 200, of=queries)
                with Askers(queries) as askers:
                    with machine.vanished():
                        deadline = time.monotonic() + OUTAGE_S
                        while time.monotonic() < deadline:
                            ledger.wait_for(acknowledged=1)
                    answered = seconds_until(lambda: queries.get("/v1/groups").status_code == 200, of=queries)
                ledger.wait_for(acknowledged=50)
            assert {status for _, status in askers.answers} <= {200, 503}
            assert askers.refused > 5 * CLIENTS
            assert ledger.spooled == set()
            assert ledger.refused == []
            head = len(history(database))
            current = seconds_until(lambda: queries.get("/v1/groups", wait_for=head).status_code == 200, of=queries)
            assert_served_as_recorded(queries, database)
            assert_no_traceback(queries)
    summary(
        f"the replica away for {OUTAGE_S} s: {len(askers.answers)} queries, {askers.refused} refused, the slowest"
        f" answered in {askers.slowest:.1f} s; afterwards answered within {answered}, current {current} later"
    )


def test_the_primary_vanishes_and_the_synchronous_standby_that_inherited_its_settings_is_promoted(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with attached() as machine, running(machine=machine) as primary:
        primary.database("promoted")
        execute(primary, "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
        with running(primary=primary) as standby:
            hosts = f"{machine.address}:{primary.port},127.0.0.1:{standby.port}"
            point(database, f"postgresql://postgres@{hosts}/promoted?target_session_attrs=read-write")
            with (
                serving(database, "--only", "callbacks") as receiver,
                serving(database, "--only", "projections") as worker,
                serving(database, "--only", "queries") as queries,
            ):
                servers = receiver, worker, queries
                until(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)], of=receiver)
                with pouring(receiver, ledger=ledger, senders=2), machine.vanished():
                    ledger.wait_for(acknowledged=50)
                    until(lambda: receiver.get("/readyz").status_code == 503, of=receiver)
                    primary.stop(immediately=True)
                    execute(standby, *STOP_WAITING, PROMOTE)
                    forwarded = seconds_until(lambda: spooled(database) == 0, of=receiver)
                    ready = seconds_until(
                        lambda: [server.get("/readyz").status_code for server in servers] == [200] * 3, of=queries
                    )
                    ledger.enough.set()
                    assert_served_as_recorded(queries, database)
                assert ledger.refused == []
                ledger.assert_kept(history(database))
                for server in servers:
                    assert_no_traceback(server)
    summary(f"promoted: the spool empty after {forwarded}, all ready {ready} later")
