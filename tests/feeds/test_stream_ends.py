"""How a stream ends: rotated, cut because its reader is too slow, or stopped; and what keeps it alive until then."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from projector.feeds.cursor import BEGINNING, FeedCursor, HistoryChanged
from projector.feeds.feed import Item, Read
from projector.feeds.log import FeedState
from projector.feeds.selection import Selection
from projector.http import protocol
from projector.http.feed_forms import ServerSentEvents
from projector.http.feed_head import FeedHead
from projector.http.protocol import GuardedProtocol
from projector.http.reached_position import ReachedPosition
from projector.http.streams import HEADERS, Stream, Times
from tests.feeds.sse import ServerEvent, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEVER = 3_600
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class FakeFeed:
    """Has as many messages as `count`, each of so many bytes, then nothing, or another history."""

    def __init__(self, count: int, size: int = 10, *, then_changes: bool = False) -> None:
        self._count = count
        self._data = b'"' + b"x" * size + b'"'
        self._then_changes = then_changes

    async def read(self, cursor: FeedCursor, state: FeedState, selection: Selection) -> Read:
        if cursor.position < self._count:
            following = cursor._replace(position=cursor.position + 1)
            return Read([Item(following, self._data, "g", 0, is_notice=False)], following)
        if self._then_changes:
            raise HistoryChanged("other rules")
        return Read([], cursor)


@contextlib.contextmanager
def streaming(feed: Any, times: Times) -> Iterator[tuple[tuple[str, int], Callable[[], None]]]:
    """Serve a stream for each request; yield the address, and what stops the server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        state = FeedState(0, 0, 0, 0, 0)

        async def read_state() -> FeedState:
            return state

        async def position() -> int:
            return 0

        head = FeedHead(read_state, ReachedPosition(position))
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        stream = Stream(feed, head, ServerSentEvents("change"), Selection(), times)
        await stream.send(FeedCursor(0, BEGINNING, 0), state, scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(app, http=GuardedProtocol, lifespan="off", log_config=None))

    def stop() -> None:
        server.should_exit = True

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield listening.getsockname(), stop
        finally:
            stop()
            thread.join()


def events_of(connection: socket.socket) -> Iterator[ServerEvent]:
    """Parse a chunked response as it comes, until its end."""

    def lines() -> Iterator[str]:
        with connection.makefile("rb") as file:
            while file.readline() != b"\r\n":
                pass
            rest = b""
            while size := int(file.readline() or b"0", 16):
                rest += file.read(size)
                file.readline()
                *complete, rest = rest.split(b"\n")
                yield from (line.decode() for line in complete)

    return parse(lines())


@contextlib.contextmanager
def reading(address: tuple[str, int]) -> Iterator[Iterator[ServerEvent]]:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(REQUEST)
        yield events_of(connection)


def test_a_stream_is_rotated_with_a_goodbye_and_heartbeats_carry_its_cursor_until_then() -> None:
    with streaming(FakeFeed(2), Times(heartbeat=0.02, life=1)) as (address, _), reading(address) as events:
        seen = [*events]
    names = [event.name for event in seen]
    assert names[:4] == ["hello", "change", "change", "caught-up"]
    assert {*names[4:-1]} == {"heartbeat"}
    assert {event.last_id for event in seen[4:-1]} == {f"2-{BEGINNING}-0"}
    assert (seen[-1].name, seen[-1].data) == ("bye", {"reason": "rotate"})


def test_a_reader_that_does_not_read_is_cut_and_finds_the_goodbye_if_it_reads_after_all() -> None:
    times = Times(heartbeat=NEVER, life=NEVER, slow=0.2)
    with streaming(FakeFeed(10_000, 100_000), times) as (address, _), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(30)
        connection.connect(address)
        connection.sendall(REQUEST)
        connection.recv(1_000, socket.MSG_PEEK)
        threading.Event().wait(1)
        received = b""
        while some := connection.recv(1_000_000):
            received += some
    assert received.endswith(b'event: bye\ndata: {"reason":"slow"}\n\n\r\n0\r\n\r\n')
    assert received.count(b"event: change") < 10_000


def test_a_reader_that_never_reads_again_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_S", 0.2)
    times = Times(heartbeat=NEVER, life=NEVER, slow=0.1)
    with streaming(FakeFeed(10_000, 100_000), times) as (address, stop), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(address)
        connection.sendall(REQUEST)
        connection.recv(1_000, socket.MSG_PEEK)
        stop()  # returns only when no connection is left


def test_a_stop_ends_all_streams_at_once() -> None:
    with (
        streaming(FakeFeed(1), Times(heartbeat=NEVER, life=NEVER)) as (address, stop),
        reading(address) as first,
        reading(address) as second,
    ):
        for events in (first, second):
            assert [next(events).name for _ in range(3)] == ["hello", "change", "caught-up"]
        stop()
        for events in (first, second):
            assert [event.data for event in events] == [{"reason": "stopping"}]


def test_a_change_of_the_history_ends_a_stream_with_a_reset() -> None:
    times = Times(heartbeat=NEVER, life=NEVER)
    with streaming(FakeFeed(1, then_changes=True), times) as (address, _), reading(address) as events:
        assert [event.name for event in events] == ["hello", "change", "reset"]
