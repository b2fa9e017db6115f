"""SIGTERM and Ctrl-C: every recorded callback is acknowledged and projected, and the exit status is 0."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from projector.bootstrap import PROJECTIONS, open_stores
from projector.subscription import Subscription
from tests.kinds import generations, live_file, settings
from tests.processes.databases import assert_served_as_recorded, begin_read_model, checkpoints, history, write
from tests.processes.traffic import Ledger, callback, pouring
from tests.processes.waiting import until
from tests.running import SDK_APP_ID, environment, serving, signature

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Server

pytestmark = pytest.mark.slow  # every test here starts processes

SEED = 20220101
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def is_closed(server: Server) -> bool:
    """Whether new connections are refused."""
    try:
        connect(server).close()
    except ConnectionError:
        return True
    return False


def begin_post(server: Server, body: bytes, *, length: int, signed: str = "") -> socket.socket:
    """Post the first bytes of a body, and make sure that the server has read them."""
    connection = connect(server)
    command = json.loads(body)["CallbackCommand"]
    connection.sendall(
        f"POST /callback?SdkAppid={SDK_APP_ID}&CallbackCommand={command}{signed} HTTP/1.1\r\n"
        f"Host: test\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body[:length]
    )
    for _ in range(2):
        server.get("/livez").raise_for_status()
    return connection


def response_of(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("number", SIGNALS)
def test_stopped_under_load_it_has_acknowledged_and_projected_every_recorded_callback_and_the_next_start_continues(
    tmp_path: Path, number: signal.Signals
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    for turn in range(3):
        with serving(database) as server:
            with pouring(server, ledger=ledger, name=str(turn)):
                ledger.wait_for(acknowledged=150)
                assert server.stop(number) == 0
            assert ledger.refused == []
            assert server.log[-1]["event"] == "stopped"
            assert [line for line in server.raw_log if "Traceback" in line or "exception" in line] == []
        assert {file.name for file in tmp_path.iterdir()} == {
            "events.db",
            "events.db.read-model.current",
            "events.db.read-model-v3",
            *generations(database),
            "events.db.read-model-v3.lock",
            "events.db.read-model-v3.worker",
        }, "no WAL is left"
        recorded = history(database)
        ledger.assert_kept(recorded)
        ledger.assert_nothing_more(recorded)
        assert {*checkpoints(database).values()} == {len(recorded)}
    with serving(database) as server:
        assert_served_as_recorded(server, database)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_callback_that_is_half_sent_when_the_signal_comes_is_recorded(tmp_path: Path, number: signal.Signals) -> None:
    database, body = tmp_path / "events.db", json.dumps(callback(1, SEED)).encode()
    with serving(database) as server:
        connection = begin_post(server, body, length=20)
        server.process.send_signal(number)
        until(lambda: is_closed(server), of=server)
        connection.sendall(body[20:])
        response = response_of(connection)
        assert response.startswith(b"HTTP/1.1 200 ")
        assert b"projector-position: 1\r\n" in response.lower()
        assert server.process.wait(30) == 0
    assert len(history(database)) == 1
    assert {*checkpoints(database).values()} == {1}


@pytest.mark.parametrize("released", [True, False], ids=["released in time", "released too late"])
def test_callbacks_that_wait_for_the_store_when_the_signal_comes_get_a_correct_response(
    tmp_path: Path, *, released: bool
) -> None:
    database = tmp_path / "events.db"
    bodies = [json.dumps(callback(serial, SEED)).encode() for serial in range(1, 9)]
    with serving(database) as server:
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            connections = [begin_post(server, body, length=len(body)) for body in bodies]
            server.process.send_signal(signal.SIGTERM)
            until(lambda: is_closed(server), of=server)
            if released:
                other.execute("ROLLBACK")
            responses = [response_of(connection) for connection in connections]
        assert {response.split(b" ")[1] for response in responses} <= ({b"200", b"503"} if released else {b"503"})
        assert server.process.wait(30) == 0
    positions = {response.lower().partition(b"projector-position: ")[2].split(b"\r\n")[0] for response in responses}
    positions -= {b""}
    assert {str(recorded.position).encode() for recorded in history(database)} == positions
    assert {*checkpoints(database).values()} == {len(positions)}


def test_stopped_before_its_first_poll_it_still_projects_the_stored_events(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 101), SEED)
    events, target = open_stores(settings(database)).events, begin_read_model(database)
    subscription = Subscription(events, target, PROJECTIONS)
    subscription.stop()
    subscription.run()
    target.close()
    events.close()
    assert {*checkpoints(database).values()} == {100}


def test_signalled_twice_it_does_not_wait_for_a_sender_that_never_finishes(tmp_path: Path) -> None:
    body = json.dumps(callback(1, SEED)).encode()
    with serving(tmp_path / "events.db") as server, begin_post(server, body, length=70):
        server.process.send_signal(signal.SIGINT)
        until(lambda: is_closed(server), of=server)
        assert server.stop(signal.SIGINT) == 0
        assert server.log[-1]["event"] == "stopped"
    assert {file.name for file in tmp_path.iterdir()} == {
        "events.db",
        "events.db.read-model.current",
        "events.db.read-model-v3",
        *generations(tmp_path / "events.db"),
        "events.db.read-model-v3.lock",
        "events.db.read-model-v3.worker",
    }
    assert history(tmp_path / "events.db") == []


def test_a_callback_that_is_cut_off_by_a_stop_is_not_logged(tmp_path: Path) -> None:
    token, now = "very-secret-token", int(time.time())
    account = {"Operator_Account": "very-secret-user"}
    body = json.dumps(account | callback(1, SEED) | account).encode()
    with (
        serving(tmp_path / "events.db", PROJECTOR_CALLBACK_TOKEN=token) as server,
        begin_post(server, body, length=70, signed=f"&Sign={signature(token, now)}&RequestTime={now}"),
    ):
        server.process.send_signal(signal.SIGINT)
        until(lambda: is_closed(server), of=server)
        server.stop(signal.SIGINT)
        log = "".join(server.raw_log)
        assert [word for word in (token, "very-secret-user", signature(token, now)) if word in log] == []


@pytest.mark.parametrize("number", SIGNALS)
def test_stopped_as_soon_as_it_logs_serving_it_exits_with_0(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "projector", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment(tmp_path / "events.db"), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any(json.loads(line)["event"] == "serving" for line in process.stderr)
        process.send_signal(number)
        assert process.wait(30) == 0
        assert json.loads(process.stderr.read().splitlines()[-1])["event"] == "stopped"


def test_stopped_while_it_catches_up_it_stops_and_the_next_start_continues(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 10_001), SEED)
    with serving(database) as server:
        until(lambda: max(checkpoints(database).values(), default=0) > 0, of=server)
        assert server.stop() == 0
    assert len({*checkpoints(database).values()}) == 1
    with serving(database) as server:
        assert_served_as_recorded(server, database)


def test_stopped_while_another_process_locks_the_read_model_it_stops_and_the_next_start_continues(
    tmp_path: Path,
) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        until(lambda: checkpoints(database), of=server)
        with closing(sqlite3.connect(live_file(database), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert server.post(callback(1, SEED)).status_code == 200
            assert server.stop() == 0
            assert server.log[-1]["event"] == "stopped"
    assert {*checkpoints(database).values()} == {0}
    with serving(database) as server:
        assert_served_as_recorded(server, database)


def test_two_servers_on_one_database_record_nothing_twice_and_the_second_continues_when_the_first_is_killed(
    tmp_path: Path,
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database) as first, serving(database) as second:
        with pouring(first, second, ledger=ledger):
            ledger.wait_for(acknowledged=300)
            first.kill()
            ledger.wait_for(acknowledged=300)
        for serial in [serial for serial in sorted(ledger.acknowledged) if serial % 10][:50]:
            ledger.acknowledge(serial, int(second.post(callback(serial, SEED)).headers["Projector-Position"]))
        ledger.assert_kept(history(database))
        assert_served_as_recorded(second, database)
        with serving(database) as third:
            assert_served_as_recorded(third, database)
        assert second.stop() == 0
    assert {*checkpoints(database).values()} == {len(history(database))}
