"""Several receivers, workers and query servers on one PostgreSQL, while they and PostgreSQL are killed repeatedly."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psycopg
import pytest

from projector.bootstrap import open_events
from projector.event_store import StoreUnavailable
from tests import kinds
from tests.kinds import point, settings, url_of
from tests.postgresql import running
from tests.processes.campaign import rounds, summary
from tests.processes.databases import assert_served_as_recorded, checkpoints, history, spooled, write
from tests.processes.traffic import Ledger, callback, pouring
from tests.processes.waiting import until
from tests.running import Server, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import PostgreSQL

pytestmark = [
    pytest.mark.slow,  # every test here starts processes
    pytest.mark.usefixtures("kind"),
    pytest.mark.parametrize("kind", ["postgresql"], indirect=True),
]

SEED = 20240615
ROUNDS = rounds(20)
OUTAGE_S = 30
FLEET = {"callbacks": 3, "projections": 2, "queries": 2}


class Fleet:
    """Processes with one role each, which can be killed and started again."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._stacks: dict[tuple[str, int], ExitStack] = {}
        self.servers: dict[tuple[str, int], Server] = {}

    def __enter__(self) -> Fleet:
        for role, count in FLEET.items():
            for number in range(count):
                self.start(role, number)
        return self

    def __exit__(self, *_: object) -> None:
        for stack in self._stacks.values():
            stack.close()

    def start(self, role: str, number: int) -> None:
        stack = self._stacks[role, number] = ExitStack()
        self.servers[role, number] = stack.enter_context(serving(self._database, "--only", role))

    def kill(self, role: str, number: int) -> None:
        self.servers.pop((role, number)).kill()
        self._stacks.pop((role, number)).close()

    def of(self, role: str) -> list[Server]:
        return [server for (other, _), server in self.servers.items() if other == role]


class Follower(threading.Thread):
    """Reads the history as it grows, and notes positions that are skipped or out of order."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.stopping = threading.Event()
        self.position = 0
        self.faults: list[str] = []
        self._store = open_events(settings(database))

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                positions = [recorded.position for recorded in self._store.read(self.position, 500)]
            except StoreUnavailable:
                continue
            if positions != list(range(self.position + 1, self.position + 1 + len(positions))):
                self.faults.append(f"after {self.position} came {positions}")
            self.position = max(positions, default=self.position)
        self._store.close()


def test_whatever_is_killed_every_acknowledged_callback_is_recorded_once_and_no_position_is_skipped(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    database, rng = tmp_path / "events.db", random.Random(SEED)
    ledger = Ledger(SEED, may_refuse=True)
    victims = [*FLEET, "postgresql"]
    with Fleet(database) as fleet:
        follower = Follower(database)
        follower.start()
        for turn in range(ROUNDS):
            with pouring(*fleet.of("callbacks"), ledger=ledger, senders=6, name=str(turn)):
                ledger.wait_for(acknowledged=rng.randrange(20, 80))
                victim = victims[turn % len(victims)]
                if victim == "postgresql":
                    postgresql.stop(immediately=True)
                    postgresql.start()
                else:
                    number = rng.randrange(FLEET[victim])
                    fleet.kill(victim, number)
                    fleet.start(victim, number)
                ledger.wait_for(acknowledged=20)
        until(lambda: spooled(database) == 0, of=fleet.of("queries")[0])
        recorded = history(database)
        until(lambda: follower.position == len(recorded), of=fleet.of("queries")[0])
        follower.stopping.set()
        follower.join()
        ledger.assert_kept(recorded)
        for server in fleet.of("queries"):
            assert_served_as_recorded(server, database)
        assert follower.faults == []
    assert run_cli(database, "verify").returncode == 0
    assert len(ledger.acknowledged) > ROUNDS * 40
    summary(f"{ROUNDS} kills, {ledger.posts} posts, {len(ledger.acknowledged)} callbacks acknowledged")


def test_while_the_database_is_down_for_half_a_minute_every_callback_is_acknowledged_and_recorded_afterwards(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database, "--only", "callbacks") as receiver, serving(database, "--only", "projections"):
        with pouring(receiver, ledger=ledger, senders=8):
            ledger.wait_for(acknowledged=50)
            postgresql.stop(immediately=True)
            deadline = time.monotonic() + OUTAGE_S
            while time.monotonic() < deadline:
                ledger.wait_for(acknowledged=1)
            ready = receiver.get("/readyz")
            assert (ready.status_code, ready.json()["spool"]["events"] > 100) == (503, True)
            assert "projector_spool_events" in receiver.get("/metrics").text
            postgresql.start()
            ledger.wait_for(acknowledged=100)
        assert ledger.refused == []
        assert len(ledger.spooled) >= 1_000
        until(lambda: spooled(database) == 0, of=receiver)
    ledger.assert_kept(history(database))
    with serving(database) as server:
        assert_served_as_recorded(server, database)


def test_while_the_database_does_not_respond_every_callback_is_acknowledged_and_recorded_afterwards(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database, "--only", "callbacks") as receiver, serving(database, "--only", "projections") as worker:
        with pouring(receiver, ledger=ledger, senders=8):
            ledger.wait_for(acknowledged=50)
            with postgresql.frozen():
                ledger.wait_for(acknowledged=100)
            ledger.wait_for(acknowledged=100)
        assert ledger.refused == []
        assert len(ledger.spooled) >= 50
        until(lambda: spooled(database) == 0, of=receiver)
        until(lambda: worker.get("/readyz").status_code == 200, of=worker)
    ledger.assert_kept(history(database))


def test_a_receiver_killed_with_callbacks_in_its_spool_forwards_them_when_it_is_started_again(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database, "--only", "callbacks") as receiver:
        postgresql.stop()
        with pouring(receiver, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=100)
            receiver.kill()
    postgresql.start()
    assert spooled(database) >= 100
    with serving(database, "--only", "callbacks") as receiver:
        until(lambda: spooled(database) == 0, of=receiver)
    ledger.assert_kept(history(database))


@pytest.mark.parametrize("roles", [["--only", "callbacks"], []], ids=["callbacks", "all roles"])
def test_a_receiver_started_while_the_database_is_down_accepts_callbacks_and_forwards_them_once_it_is_back(
    tmp_path: Path, postgresql: PostgreSQL, roles: list[str]
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database, *roles):
        postgresql.stop()
    with serving(database, *roles) as receiver:
        with pouring(receiver, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=50)
            assert receiver.get("/readyz").status_code == 503
            assert receiver.post(b"not JSON").status_code == 400
            postgresql.start()
            ledger.wait_for(acknowledged=200)
        assert ledger.refused == []
        assert ledger.spooled
        until(lambda: spooled(database) == 0, of=receiver)
        assert run_cli(database, "quarantine", "show", "1").stdout.endswith("not JSON\n")
    ledger.assert_kept(history(database))


def test_a_receiver_that_never_had_a_database_reports_it_in_one_line(tmp_path: Path, postgresql: PostgreSQL) -> None:
    database = tmp_path / "events.db"
    url_of(database)
    postgresql.stop()
    try:
        done = run_cli(database, "serve", "--only", "callbacks", "--port", "0")
    finally:
        postgresql.start()
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_when_the_worker_that_projects_dies_or_its_connection_is_cut_the_other_goes_on(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with Fleet(database) as fleet, pouring(*fleet.of("callbacks"), ledger=ledger, senders=2):
        for number in (0, 1, 0):
            ledger.wait_for(acknowledged=20)
            fleet.kill("projections", number)
            head = len(history(database))
            until(lambda head=head: min(checkpoints(database).values()) > head, of=fleet.of("queries")[0])
            fleet.start("projections", number)
        with psycopg.connect(url_of(database), autocommit=True) as server:
            leader = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND granted"
            for _ in range(3):
                ((pid,),) = server.execute(leader, (0x70726F6C,)).fetchall()
                server.execute("SELECT pg_terminate_backend(%s)", (pid,))
                head = len(history(database))
                until(lambda head=head: min(checkpoints(database).values()) > head, of=fleet.of("queries")[0])
        for worker in fleet.of("projections"):
            assert not [line for line in worker.raw_log if "Traceback" in line]


def test_of_two_workers_one_projects_and_the_other_waits(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with Fleet(database) as fleet:
        receiver, query = fleet.of("callbacks")[0], fleet.of("queries")[0]
        position = int(receiver.post(callback(1, SEED)).headers["Projector-Position"])
        until(lambda: {*checkpoints(database).values()} == {position}, of=query)
        with psycopg.connect(url_of(database)) as server:
            held = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND granted"
            assert server.execute(held, (0x70726F6C,)).fetchone() == (1,)
        assert [server.get("/readyz").status_code for server in fleet.servers.values()] == [200] * 7


def test_a_query_that_waits_for_the_database_delays_no_other_request(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server, ThreadPoolExecutor(1) as client:
        position = int(server.post(callback(1, SEED)).headers["Projector-Position"])
        assert server.get("/v1/groups", wait_for=position).status_code == 200
        with kinds.read_model(database) as other, other.transaction():
            other.execute("LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE")
            response = client.submit(server.get, "/v1/groups")
            waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND relation = 'profiles'::regclass"
            until(lambda: other.execute(waiting).fetchone() > (0,), of=server)
            assert "Projector-Position" in server.post(callback(2, SEED)).headers
            assert not response.done()
        assert response.result().status_code in (200, 503)


def test_any_number_of_replays_may_be_the_first(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 201), SEED)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run_cli(database, "replay"), range(4)))
    assert [(replay.returncode, replay.stderr) for replay in done if replay.returncode] == []
    assert {*checkpoints(database).values()} == {200}


def test_when_the_primary_dies_the_synchronous_standby_goes_on_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with running() as primary, running(primary=primary) as standby:
        primary_url, standby_url = primary.database("failing_over"), standby.url("failing_over")
        both = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/failing_over"
        point(database, f"{both}?target_session_attrs=read-write")
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary.execute("SELECT pg_reload_conf()")
        with (
            serving(database, "--only", "callbacks") as receiver,
            serving(database, "--only", "projections") as worker,
            serving(database, "--only", "queries", PROJECTOR_QUERY_DATABASE_URL=standby_url) as replica,
        ):
            until(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)], of=worker)
            with pouring(receiver, ledger=ledger, senders=4):
                ledger.wait_for(acknowledged=100)
                position = max(max(positions) for positions in ledger.acknowledged.values())
                assert replica.get("/v1/groups", wait_for=position).status_code == 200
                primary.stop(immediately=True)
                ledger.wait_for(acknowledged=100)
                standby.execute("SELECT pg_promote()")
                ledger.wait_for(acknowledged=100)
            assert ledger.refused == []
            assert ledger.spooled
            until(lambda: spooled(database) == 0, of=receiver)
            assert primary_url != standby_url
            ledger.assert_kept(history(database))
            assert_served_as_recorded(replica, database)
