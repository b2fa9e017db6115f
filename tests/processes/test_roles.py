"""A process for each role: connections go to the one they need, and a process that dies is replaced."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx2
import pytest

from tests.processes.campaign import rounds, summary
from tests.processes.databases import assert_served_as_recorded, history, write
from tests.processes.traffic import Ledger, callback, pouring
from tests.processes.waiting import until
from tests.running import SDK_APP_ID, Server, run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow  # every test here starts processes

SEED = 20261128
ROUNDS = rounds(4)
ROLES = ["callbacks", "queries", "projections"]
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
GROUPS = b"GET /v1/groups HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "events.db") as running:
        yield running


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def asked(server: Server, path: str) -> dict[str, Any]:
    """Ask over a new connection: an old one may have been that of the process that died."""
    answer: dict[str, Any] = httpx2.get(f"{server.url}{path}").json()
    return answer


def is_replaced(server: Server, role: str, pid: int) -> bool:
    """Whether a role has a process other than this one. Asked over a new connection: an old one may have been its."""
    return asked(server, "/readyz")["processes"][role]["pid"] not in (pid, None)


def connected(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def response(connection: socket.socket) -> tuple[int, bytes]:
    """Read one response with a Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)
    length = int(re.search(rb"content-length: (\d+)", received.lower())[1])  # type: ignore[index]
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(received.split(b" ")[1]), body


def posting(serial: int) -> bytes:
    body = json.dumps(callback(serial, SEED)).encode()
    query = urlencode({"SdkAppid": SDK_APP_ID, "CallbackCommand": callback(serial, SEED)["CallbackCommand"]})
    return f"POST /callback?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_one_connection_carries_callbacks_queries_and_checks_in_turn(server: Server) -> None:
    with connected(server) as connection:
        for serial in range(1, 20):
            for request in (posting(serial), GROUPS, LIVEZ, GROUPS):
                connection.sendall(request)
                assert response(connection)[0] == 200, request
            connection.sendall(
                f"GET /v1/events?after={serial - 1}&wait_for={serial} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            status, body = response(connection)
            assert (status, len(json.loads(body)["events"])) == (200, 1)


def test_a_request_that_arrives_in_pieces_is_answered_by_the_process_it_is_for(server: Server) -> None:
    with connected(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for request in (GROUPS, posting(1), LIVEZ):
            for number in range(len(request)):
                connection.sendall(request[number : number + 1])
            assert response(connection)[0] == 200


def test_a_query_behind_a_callback_that_is_not_answered_yet_is_refused_and_recorded_is_the_callback(
    server: Server,
) -> None:
    with connected(server) as connection:
        connection.sendall(posting(1) + GROUPS)
        assert response(connection)[0] == 200
        assert response(connection)[0] == 421
    with connected(server) as connection:
        connection.sendall(LIVEZ + GROUPS)
        assert [response(connection)[0] for _ in range(2)] == [200, 421]


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n", b"\r\n\r\n / /\r\n"]
)
def test_garbage_is_refused_at_once_and_harms_nobody(server: Server, garbage: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(garbage)
        assert connection.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 503"))
    assert server.get("/v1/groups").status_code == 200
    assert server.post(callback(1, SEED)).status_code == 200


@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_is_killed_under_load_is_replaced_visibly_and_nothing_acknowledged_is_lost(
    kind: str, tmp_path: Path, role: str
) -> None:
    database, ledger, rng = tmp_path / "events.db", Ledger(SEED), random.Random(f"{SEED} {role}")
    with serving(database) as server:
        for turn in range(ROUNDS):
            pid = server.pids()[role]
            with pouring(server, ledger=ledger, name=str(turn)):
                ledger.wait_for(posts=rng.randrange(1, 60))
                os.kill(pid, signal.SIGKILL)
                if role != "callbacks":
                    ledger.wait_for(acknowledged=50)
                until(partial(is_replaced, server, role, pid), of=server)
            server.logged(0, event="a process died; starting it again", process=role)
        readiness = server.get("/readyz").json()
        assert readiness["processes"][role]["restarts"] == ROUNDS
        assert readiness["processes"][role]["last_end"] == "was killed by signal 9"
        assert f'projector_process_restarts_total{{process="{role}"}} {ROUNDS}.0' in server.get("/metrics").text
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        assert ledger.refused == []
        ledger.assert_kept(history(database))
        assert_served_as_recorded(server, database)
        pids = [server.process.pid, *server.pids().values()]
        assert server.stop() == 0
    assert not any(map(is_alive, pids))
    summary(f"{kind}: {role} killed {ROUNDS} times, {len(ledger.acknowledged)} acknowledged")


def test_killed_under_load_the_supervisor_leaves_no_process_behind_and_the_next_start_has_everything(
    kind: str, tmp_path: Path
) -> None:
    database, ledger, rng = tmp_path / "events.db", Ledger(SEED), random.Random(SEED)
    for turn in range(ROUNDS):
        with serving(database) as server:
            pids = [*server.pids().values()]
            with pouring(server, ledger=ledger, name=str(turn)):
                ledger.wait_for(posts=rng.randrange(1, 200))
                server.process.kill()
                server.process.wait()
                while any(map(is_alive, pids)):
                    pass
    with serving(database) as server:
        ledger.assert_kept(history(database))
        assert_served_as_recorded(server, database)
    summary(f"{kind}: the supervisor killed {ROUNDS} times, {len(ledger.acknowledged)} acknowledged")


def test_ctrl_c_on_a_terminal_which_reaches_every_process_stops_them_in_order(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with serving(database) as server, pouring(server, ledger=ledger):
        ledger.wait_for(acknowledged=100)
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(30) == 0
    recorded = history(database)
    ledger.assert_kept(recorded)
    ledger.assert_nothing_more(recorded)
    status = json.loads(run_cli(database, "status", "--json").stdout)
    assert {projection["lag_events"] for projection in status["projections"].values()} == {0}


def test_on_one_core_all_roles_work(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    core = str(min(os.sched_getaffinity(0)))
    with serving(database, inside=["taskset", "-c", core]) as server:
        with pouring(server, ledger=ledger):
            ledger.wait_for(acknowledged=200)
        assert_served_as_recorded(server, database)


def test_several_processes_answer_queries_at_one_address_and_one_that_dies_is_replaced(
    kind: str, tmp_path: Path
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 200), SEED)
    with (
        serving(database, "--only", "projections"),
        serving(database, "--only", "queries", "--processes", "3") as server,
    ):
        assert_served_as_recorded(server, database)
        before = server.pids()
        assert list(before) == ["queries 1", "queries 2", "queries 3"]
        os.kill(before["queries 2"], signal.SIGKILL)
        server.logged(0, event="a process died; starting it again", process="queries 2")
        until(lambda: asked(server, "/readyz")["processes"]["queries 2"]["restarts"] == 1, of=server)
        for _ in range(30):  # connections of their own, and so processes by chance
            assert httpx2.get(f"{server.url}/v1/groups").status_code == 200
        assert server.stop() == 0
    assert not any(map(is_alive, before.values()))


def test_more_query_processes_serve_beside_callbacks(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", "--processes", "2") as server:
        assert list(server.pids()) == ["callbacks", "queries 1", "queries 2", "projections"]
        assert server.post(callback(1, SEED)).status_code == 200
        for _ in range(10):
            assert len(asked(server, "/v1/events?wait_for=1")["events"]) == 1


@pytest.mark.parametrize("role", ["callbacks", "projections"])
def test_processes_for_a_role_that_has_no_queries_are_refused(tmp_path: Path, role: str) -> None:
    done = run_cli(tmp_path / "events.db", "serve", "--only", role, "--processes", "2")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--processes" in done.stderr


def test_a_store_that_cannot_be_opened_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = run_cli(tmp_path / "missing" / "events.db", "serve", "--port", "0")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert str(tmp_path / "missing") in done.stderr


def test_many_clients_that_wait_for_the_same_position_are_answered_when_it_is_reached(server: Server) -> None:
    with ExitStack() as clients:
        waiting = [clients.enter_context(connected(server)) for _ in range(40)]
        for connection in waiting:
            connection.sendall(b"GET /v1/events?wait_for=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.post(callback(1, SEED)).status_code == 200
        assert {response(connection) for connection in waiting} == {(200, server.get("/v1/events").content)}


def test_callbacks_with_an_address_of_their_own_are_taken_there_only_and_queries_only_elsewhere(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", "--callbacks-address", "127.0.0.1:0") as server:
        queries, callbacks = server.url, server.log[-1]["callbacks_address"]
        with closing(httpx2.Client()) as client:
            for address, path, status in (
                (queries, "/v1/groups", 200),
                (callbacks, "/v1/groups", 404),
                (queries, "/callback", 404),
                (queries, "/readyz", 200),
                (callbacks, "/livez", 200),
                (queries, "/livez", 200),
                (callbacks, "/readyz", 404),
            ):
                assert client.get(f"{address}{path}").status_code == status, (address, path)
