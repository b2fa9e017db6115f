"""All roles behind the real pgbouncer, in each of its modes, while it and PostgreSQL are killed under load."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from projector.database.postgres_server import PostgresServer, SharedSession
from tests.kinds import point, url_of
from tests.processes.databases import assert_served_as_recorded, checkpoints, history, spooled, write
from tests.processes.traffic import Ledger, pouring
from tests.processes.waiting import until
from tests.running import assert_no_traceback, run_cli, serving
from tests.system.pgbouncer import pooling

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.postgresql import PostgreSQL
    from tests.running import Server
    from tests.system.pgbouncer import PgBouncer

pytestmark = [
    pytest.mark.system,  # pgbouncer is needed
    pytest.mark.slow,
    pytest.mark.usefixtures("kind"),
    pytest.mark.parametrize("kind", ["postgresql"], indirect=True),
]

SEED = 20261122


class Pooled:
    """A database that tests reach directly, and servers through pgbouncer."""

    def __init__(self, database: Path, postgresql: PostgreSQL, pooler: PgBouncer) -> None:
        self.database, self.postgresql, self.pooler = database, postgresql, pooler
        name = f"pooled_{pooler.port}"
        point(database, postgresql.database(name))
        self.settings = {"PROJECTOR_DATABASE_URL": pooler.url(name)}

    def serving(self, *arguments: str) -> AbstractContextManager[Server]:
        return serving(self.database, *arguments, **self.settings)

    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_cli(self.database, *arguments, **self.settings)


@pytest.fixture
def pooled(request: pytest.FixtureRequest, tmp_path: Path, postgresql: PostgreSQL) -> Iterator[Pooled]:
    with pooling(postgresql, *getattr(request, "param", ())) as pooler:
        yield Pooled(tmp_path / "events.db", postgresql, pooler)


def in_mode(mode: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pooled", [pytest.param([f"pool_mode = {mode}"], id=mode)], indirect=True)


def test_in_session_mode_one_process_receives_projects_answers_and_replays(pooled: Pooled) -> None:
    ledger = Ledger(SEED)
    with pooled.serving() as server:
        with pouring(server, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=300)
        assert ledger.spooled == set()
        ledger.assert_kept(history(pooled.database))
        assert_served_as_recorded(server, pooled.database)
        for command in ("replay", "verify", "status"):
            done = pooled.run_cli(command)
            assert done.returncode == 0, done.stderr
        assert server.get("/readyz").status_code == 200


def test_sessions_behind_the_pooler_have_the_same_time_outs(pooled: Pooled) -> None:
    server = PostgresServer(pooled.settings["PROJECTOR_DATABASE_URL"], lock_timeout_ms=250, statement_timeout_ms=2_000)
    direct = PostgresServer(url_of(pooled.database), lock_timeout_ms=250, statement_timeout_ms=2_000)
    names = "lock_timeout", "statement_timeout", "tcp_user_timeout", "tcp_keepalives_idle"
    query = f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}"
    with server.connect() as one, direct.connect() as other:
        assert one.execute(query).fetchone() == other.execute(query).fetchone() == ("250ms", "2s", "3000", "1")


def test_a_restarted_pooler_or_postgresql_under_load_loses_nothing_and_all_roles_recover(pooled: Pooled) -> None:
    database, ledger = pooled.database, Ledger(SEED)
    with (
        pooled.serving("--only", "callbacks") as receiver,
        pooled.serving("--only", "projections") as worker,
        pooled.serving("--only", "projections") as standby,
        pooled.serving("--only", "queries") as queries,
    ):
        servers = receiver, worker, standby, queries
        with pouring(receiver, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=50)
            for broken in (pooled.pooler, pooled.postgresql) * 2:
                broken.stop(immediately=True)
                ledger.wait_for(acknowledged=100)
                assert queries.get("/v1/groups").status_code == 503
                broken.start()
                until(lambda: spooled(database) == 0, of=receiver)
                head = len(history(database))
                until(lambda head=head: min(checkpoints(database).values()) >= head, of=worker)
        assert ledger.refused == []
        assert ledger.spooled
        until(lambda: spooled(database) == 0, of=receiver)
        ledger.assert_kept(history(database))
        assert_served_as_recorded(queries, database)
        until(lambda: [server.get("/readyz").status_code for server in servers] == [200] * 4, of=queries)
        for server in servers:
            assert_no_traceback(server)


def test_when_the_worker_dies_behind_the_pooler_the_other_goes_on(pooled: Pooled) -> None:
    database = pooled.database
    with pooled.serving("--only", "projections") as worker, pooled.serving("--only", "projections") as other:
        for first, victim, survivor in ((1, worker, other), (101, None, other)):
            if victim:
                victim.kill()
            write(database, range(first, first + 100), SEED)
            until(lambda first=first: {*checkpoints(database).values()} == {first + 99}, of=survivor)


@in_mode("transaction")
@pytest.mark.parametrize("command", ["serve", "replay", "status", "verify"])
def test_in_transaction_mode_every_command_says_that_session_mode_is_needed(pooled: Pooled, command: str) -> None:
    done = pooled.run_cli(command)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "set its pool_mode to session" in done.stderr
    assert pooled.postgresql.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'") == []


@in_mode("transaction")
def test_in_transaction_mode_beside_busy_clients_it_is_noticed_too(pooled: Pooled) -> None:
    url, stopping = pooled.settings["PROJECTOR_DATABASE_URL"], threading.Event()

    def be_busy() -> None:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            while not stopping.is_set():
                connection.execute("SELECT count(*) FROM pg_class")

    with ThreadPoolExecutor(4) as clients:
        busy = [clients.submit(be_busy) for _ in range(4)]
        try:
            for _ in range(20):
                with pytest.raises(SharedSession):
                    PostgresServer(url).connect()
        finally:
            stopping.set()
        assert [client.result() for client in busy] == [None] * 4


@in_mode("transaction")
def test_in_transaction_mode_a_query_server_answers_503_and_names_the_reason(pooled: Pooled) -> None:
    database = pooled.database
    with (
        serving(database, "--only", "projections"),
        serving(
            database, "--only", "queries", PROJECTOR_QUERY_DATABASE_URL=pooled.settings["PROJECTOR_DATABASE_URL"]
        ) as queries,
    ):
        for _ in range(20):
            assert queries.get("/v1/groups").status_code == 503
        ready = queries.get("/readyz")
        assert (ready.status_code, "pool_mode" in ready.text) == (503, True), ready.text
        assert_no_traceback(queries)
