"""The event store on PostgreSQL as a database: its format, the cost of an append, and failures."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from projector.database.postgres import escape_nul, unescape_nul
from projector.database.postgres_server import PostgresServer
from projector.event_store import Candidate, StoreUnavailable, postgres_recorder
from projector.event_store.postgres_recorder import PostgresTransactions
from tests.domain import facts as f
from tests.event_store.databases import open_postgres
from tests.postgresql import free_port
from tests.running import run_cli

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import PostgreSQL


pytestmark = pytest.mark.slow  # every test here needs a server


def rows(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def new(*appended: Any) -> list[Candidate]:
    return [Candidate(event, None) for event in appended]


def test_the_library_alone_reads_what_is_stored_and_appends_to_it_without_a_gap(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    store, _ = open_postgres(url, {})
    with closing(store):
        store.append(new(f.created(0, "ann"), f.joined(1, "bob")))
        known = psycopg.conninfo.conninfo_to_dict(url)
        with PostgresDatastore(
            *(str(known[name]) for name in ("dbname", "host", "port", "user")), "", originator_id_type="text"
        ) as datastore:
            recorder = PostgresApplicationRecorder(datastore)
            recorder.create_table()
            rows = recorder.select_notifications(None, 10)
            assert [(row.id, row.originator_id, row.originator_version) for row in rows] == [
                (1, f.GROUP, 1),
                (2, f.GROUP, 2),
            ]
            recorder.insert_events([StoredEvent(f.GROUP, 3, rows[1].topic, rows[1].state)])
        assert [row.position for row in store.read(0, 10)] == [1, 2, 3]
        assert store.append(new(f.joined(2, "cyd")))[0].position == 4


def test_an_append_that_fails_leaves_no_gap(postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    store, _ = open_postgres(url, {})
    with closing(store):
        store.append(new(f.created(0, "ann")))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE identities ADD CONSTRAINT broken CHECK (position < 0) NOT VALID")
            with pytest.raises(StoreUnavailable):
                store.append([Candidate(f.joined(1, "bob"), b"1" * 16)])
            connection.execute("ALTER TABLE identities DROP CONSTRAINT broken")
        assert store.append([Candidate(f.joined(1, "bob"), b"1" * 16)])[0].position == 2
        assert store.head() == 2


def test_a_batch_is_one_statement_however_many_events_it_has(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = open_postgres(postgresql.new_database(), {})
    executed: list[str] = []
    real = PostgresTransactions.rows

    def counted(transactions: PostgresTransactions, statement: str, values: Any) -> list[Any]:
        executed.append(statement)
        return real(transactions, statement, values)

    with closing(store):
        store.require_decodable()
        monkeypatch.setattr(PostgresTransactions, "rows", counted)
        store.append(new(*(f.joined(at, "ann", group_id=f"g{at % 7}") for at in range(500))))
    assert len(executed) == 1


def test_an_append_reads_no_table_whole_even_by_a_plan_that_was_made_when_there_was_nothing(
    postgresql: PostgreSQL,
) -> None:
    url = postgresql.new_database()
    store, _ = open_postgres(url, {})
    assert store.head() == 0
    store.close()
    append = "SELECT append_to_groups(%s::text[], %s::text[], %s::bytea[], %s::bytea[], 0)"
    with psycopg.connect(url) as connection:
        for first in range(0, 3_200, 32):
            numbers = range(first, first + 32)
            groups, identities = [f"g{number % 50}" for number in numbers], [str(number).encode() for number in numbers]
            connection.execute(append, (groups, ["MembersJoined"] * 32, [b"{}"] * 32, identities))
        seen = connection.execute("SELECT relname, seq_scan FROM pg_stat_xact_user_tables").fetchall()
        assert sorted(row for row in seen if row[0] in ("identities", "stored_events")) == [
            ("identities", 0),
            ("stored_events", 0),
        ]


@pytest.mark.parametrize("text", ["", "plain", "\u0000", "\u0001", "\u0002", "a\u0000b\u0001\u0000", "\u0001\u0001"])
def test_text_that_postgresql_refuses_comes_back_as_it_was(text: str) -> None:
    assert "\u0000" not in escape_nul(text)
    assert unescape_nul(escape_nul(text)) == text


def test_stored_text_has_the_order_and_the_prefixes_of_the_text() -> None:
    texts = [
        "",
        "\u0000",
        "\u0000a",
        "\u0000\u0000",
        "\u0001",
        "\u0001\u0000",
        "\u0002",
        "a",
        "a\u0000",
        "a\u0001",
        "aa",
    ]
    assert sorted(texts, key=escape_nul) == sorted(texts)
    for text in texts:
        for other in texts:
            assert escape_nul(other).startswith(escape_nul(text)) == other.startswith(text)


def test_what_keeps_it_from_connecting_is_said_in_one_line(tmp_path: Path, postgresql: PostgreSQL) -> None:
    there = postgresql.url("postgres")
    for url, named in (
        (f"postgresql://postgres@127.0.0.1:{free_port()}/x", "Connection refused"),
        (postgresql.url("nowhere"), 'database "nowhere" does not exist'),
        (there.replace("postgres@", "stranger@"), 'role "stranger" does not exist'),
        (f"{there}?nonsense=1", "nonsense"),
        ("postgresql://postgres@no.such.host.invalid/x", "no.such.host.invalid"),
    ):
        for command in (["serve", "--port", "0"], ["status"], ["replay"]):
            done = run_cli(tmp_path / "unused.db", *command, PROJECTOR_DATABASE_URL=url)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
            assert named in done.stderr


def test_a_wrong_password_is_said_in_one_line(tmp_path: Path, postgresql: PostgreSQL) -> None:
    postgresql.execute("CREATE ROLE careful LOGIN SUPERUSER PASSWORD 'right'")
    rules = postgresql.data / "pg_hba.conf"
    rules.write_text(f"host all careful 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    postgresql.execute("SELECT pg_reload_conf()")
    there = postgresql.new_database()
    wrong = run_cli(tmp_path / "x", "status", PROJECTOR_DATABASE_URL=there.replace("postgres@", "careful:wrong@"))
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "password authentication failed" in wrong.stderr
    assert "wrong@" not in wrong.stderr
    right = run_cli(tmp_path / "x", "replay", PROJECTOR_DATABASE_URL=there.replace("postgres@", "careful:right@"))
    assert right.returncode == 0


def test_the_settings_say_how_long_is_waited_and_the_url_comes_before_them(postgresql: PostgreSQL) -> None:
    there = postgresql.new_database()
    for url, seen in ((there, ("250ms", "2s")), (f"{there}?options=-c%20lock_timeout%3D99", ("99ms", "2s"))):
        with PostgresServer(url, lock_timeout_ms=250, statement_timeout_ms=2_000).connect() as connection:
            executed = ("lock_timeout", "statement_timeout")
            rows = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in executed]
            assert tuple(value for (value,) in rows) == seen


def test_a_process_keeps_no_more_connections_than_it_is_told(tmp_path: Path, postgresql: PostgreSQL) -> None:
    store, _ = open_postgres(there := postgresql.new_database(), {}, pool_size=2)
    name = there.rpartition("/")[2]
    with closing(store), ThreadPoolExecutor(8) as readers:
        assert list(readers.map(lambda _: store.read(0, 10), range(200))) == [[]] * 200
        counted = f"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}'"
        assert postgresql.execute(counted)[0][0] <= 2


def test_a_server_that_is_too_old_is_said_so(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_recorder, "_MIN_SERVER_VERSION", 990_000)
    store, _ = open_postgres(postgresql.new_database(), {})
    with closing(store), pytest.raises(StoreUnavailable, match="PostgreSQL 16 is too old; version 99 or newer"):
        store.head()


def test_after_an_outage_the_first_request_succeeds_however_often_it_was_tried_before(postgresql: PostgreSQL) -> None:
    store, _ = open_postgres(postgresql.new_database(), {}, pool_size=1)
    with closing(store):
        assert store.head() == 0
        postgresql.stop(immediately=True)
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                store.head()
        postgresql.start()
        assert store.head() == 0


def test_while_a_server_does_not_answer_one_caller_tries_and_the_others_fail_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as threads:
        server = PostgresServer(f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2")
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            server.connect()
        silent.accept()[0].close()
        trying = threads.submit(server.connect)
        with silent.accept()[0]:
            for _ in range(20):
                with pytest.raises(psycopg.OperationalError, match="timeout"):
                    server.connect()
            assert not trying.done()
        assert trying.exception() is not None
