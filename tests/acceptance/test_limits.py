"""The limits of a connection: requests and heads that never end, crowds, and clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from projector.http import protocol
from projector.http.protocol import GuardedProtocol
from tests.processes.traffic import callback
from tests.running import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = b"POST /callback HTTP/1.1\r\nHost: x\r\n"


@contextlib.contextmanager
def guarded() -> Iterator[tuple[str, int]]:
    """Serve an application that answers any request with `ok`, after as many bytes as its query string says."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
        body = b"x" * int(scope["query_string"] or 0) + b"ok"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, http=GuardedProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def everything(connection: socket.socket) -> bytes:
    """Return the bytes received until the connection is closed or reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while some := connection.recv(65536):
            received += some
    return received


def is_answered(connection: socket.socket) -> bool:
    received = b""
    while not received.endswith(b"ok"):
        received += connection.recv(65536)
    return received.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent", [b"", b"P", HEAD, HEAD + b"Content-Length: 10\r\n\r\n", HEAD + b"Content-Length: 10\r\n\r\n12345"]
)
def test_a_sender_that_never_ends_a_request_is_dropped(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_S", 0.05)
    with guarded() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(sent)
        assert everything(connection) == b""


def test_a_sender_that_sends_byte_by_byte_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_S", 0.05)
    with guarded() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(HEAD)
        with pytest.raises(OSError, match=r"reset|pipe"):  # noqa: PT012 - whichever byte it is
            while True:
                connection.sendall(b"x")
        assert everything(connection) == b""


def test_a_head_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(HEAD)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 1_000 * protocol.MAX_HEAD_BYTES:
                connection.sendall(b"X-More: " + b"x" * 1_000 + b"\r\n")
                sent += 1_000
        assert everything(connection) == b""
        assert sent < 1_000 * protocol.MAX_HEAD_BYTES


def test_requests_that_end_are_answered_one_after_the_other_whatever_their_bodies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "MAX_HEAD_BYTES", 1_000)
    with guarded() as address, socket.create_connection(address, timeout=30) as connection:
        for length in (0, 1, 100_000, 2):
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % length + b"x" * length)
            assert is_answered(connection)


def test_of_a_crowd_the_longest_idle_connections_are_dropped_and_a_newcomer_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol.GuardedProtocol, "max_connections", 5)
    with guarded() as address, contextlib.ExitStack() as crowd:

        def connected() -> socket.socket:
            return crowd.enter_context(socket.create_connection(address, timeout=30))

        def is_served(connection: socket.socket) -> bool:
            connection.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
            return is_answered(connection)

        silent, begun = connected(), connected()
        begun.sendall(HEAD)
        kept = [connected() for _ in range(3)]
        assert [is_served(connection) for connection in kept] == [True] * 3
        newcomer = connected()
        assert is_served(newcomer)
        assert everything(silent) == b""
        assert is_served(connected())
        assert everything(begun) == b""
        assert is_served(connected())
        assert everything(kept[0]) == b""
        assert is_served(newcomer)


LARGE = 32 * 1024 * 1024
REQUEST = b"GET /?%d HTTP/1.1\r\nHost: x\r\n\r\n" % LARGE


def test_a_client_that_does_not_read_the_response_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, gone = GuardedProtocol.connection_lost, threading.Event()

    def connection_lost(connection: GuardedProtocol, error: Exception | None) -> None:
        lost(connection, error)
        gone.set()

    monkeypatch.setattr(protocol, "REQUEST_S", 0.05)
    monkeypatch.setattr(GuardedProtocol, "connection_lost", connection_lost)
    with guarded() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(REQUEST)
        assert gone.wait(30)
        assert len(everything(connection)) < LARGE


def test_a_client_that_reads_slowly_and_steadily_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_S", 0.3)
    with guarded() as address, socket.create_connection(address, timeout=30) as connection:
        connection.sendall(REQUEST)
        received = 0
        while received < LARGE:
            received += len(connection.recv(1024 * 1024))
            time.sleep(0.005)  # a slow client


@pytest.mark.slow
def test_a_server_that_is_stopped_does_not_wait_for_endless_requests(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            target = f"/callback?SdkAppid={server.app_id}&CallbackCommand=Group.CallbackAfterGroupFull".encode()
            connection.sendall(HEAD.replace(b"/callback", target) + b"Content-Length: 10\r\n\r\n12345")
            assert server.post(callback(1, 1)).status_code == 200
            assert server.stop() == 0
            assert everything(connection) == b""
        assert [line for line in server.raw_log if "Traceback" in line] == []
        assert json.loads(server.raw_log[-1])["event"] == "stopped"
