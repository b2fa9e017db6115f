"""Streams of server-sent events: each ends by itself, and is cut if its reader is too slow."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from starlette.types import Receive, Scope, Send

from projector.event_store import StoreUnavailable
from projector.feeds.cursor import FeedCursor, HistoryChanged
from projector.feeds.feed import Feed, Read
from projector.feeds.log import FeedState
from projector.feeds.selection import Selection
from projector.http.feed_forms import ServerSentEvents
from projector.http.feed_head import FeedHead
from projector.http.problems import Problem
from projector.read_model import ReadModelUnavailable

MAX_STREAMS: Final = 200
MAX_STREAMS_PER_TOKEN: Final = 20
HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"vary", b"Accept"),
)
_RETRY_S: Final = 1.0
_GOODBYE_S: Final = 1.0

End: TypeAlias = Literal["rotate", "stopping", "slow"]


class Times(NamedTuple):
    """The times of a stream, in seconds. A stream lives for `life` to a tenth less or more."""

    heartbeat: float = 15
    life: float = 600
    slow: float = 10


class Connection(Protocol):
    """The connection on which a response is sent."""

    on_shutdown: Callable[[], None] | None

    def cut(self, last: bytes) -> None:
        """End a response, whatever of it the client has still to read, and close the connection."""


class StreamLimit:
    """Counts open streams: at most so many, and at most `per_token` for each read token, if there are tokens."""

    def __init__(self, most: int = MAX_STREAMS, per_token: int = MAX_STREAMS_PER_TOKEN) -> None:
        self._most = most
        self._per_token = per_token
        self._open: Counter[object] = Counter()

    @contextmanager
    def one_more(self, token: object) -> Iterator[None]:
        """Count a stream while it is open. Raises Problem."""
        if self._open.total() >= self._most or (token is not None and self._open[token] >= self._per_token):
            raise Problem(503, "Too many streams are open.", {"Retry-After": "30"})
        self._open[token] += 1
        try:
            yield
        finally:
            self._open[token] -= 1


class Stream:
    """One response of server-sent events."""

    def __init__(
        self,
        feed: Feed,
        head: FeedHead,
        events: ServerSentEvents,
        selection: Selection,
        times: Times,
    ) -> None:
        self._feed = feed
        self._head = head
        self._events = events
        self._selection = selection
        self._times = times
        self._end: End | None = "rotate"

    async def send(self, cursor: FeedCursor, state: FeedState, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything after a cursor, until the stream ends or the reader is gone."""
        following = asyncio.create_task(self._follow(cursor, state, send))
        gone = asyncio.create_task(_disconnected(receive))
        connection: Connection = scope["connection"]
        connection.on_shutdown = lambda: self._stop(following)
        try:
            life = self._times.life * (0.9 + secrets.randbelow(200) / 1000)
            await asyncio.wait({following, gone}, timeout=life, return_when=asyncio.FIRST_COMPLETED)
            following.cancel()
            await asyncio.wait({following})
            if not following.cancelled() and (error := following.exception()):
                raise error
            if not gone.done():
                await self._say_goodbye(connection, gone, send)
        finally:
            connection.on_shutdown = None
            for task in (following, gone):
                task.cancel()

    def _stop(self, following: asyncio.Task[None]) -> None:
        self._end = "stopping"
        following.cancel()

    async def _say_goodbye(self, connection: Connection, gone: asyncio.Task[None], send: Send) -> None:
        bye = self._events.frame("bye", {"reason": self._end}) if self._end else b""
        try:
            if self._end == "slow":
                raise TimeoutError  # nothing more can be sent as long as the reader does not read
            async with asyncio.timeout(_GOODBYE_S):
                await send({"type": "http.response.body", "body": bye})
        except TimeoutError:
            connection.cut(bye)
            await gone

    async def _follow(self, cursor: FeedCursor, state: FeedState, send: Send) -> None:
        """Send frames, until cancelled, the reader is too slow, or the history has changed."""
        frames = _Frames(send, self._times)
        try:
            await frames.send(self._events.begin(str(cursor), state.head))
            await self._send_items(cursor, state, frames)
        except TimeoutError:
            self._end = "slow"
        except HistoryChanged as error:
            self._end = None
            await frames.send(self._events.reset(str(error)))

    async def _send_items(self, cursor: FeedCursor, state: FeedState, frames: _Frames) -> None:
        is_behind = True
        while True:
            if frames.heartbeat_in_s <= 0:
                await frames.send(self._events.heartbeat(str(cursor)))
            read = await self._read(cursor, state)
            if read.items:
                await frames.send(self._events.items(read.items))
            if read.cursor != cursor:
                cursor = read.cursor
                await asyncio.sleep(0)  # neither reading what is kept nor sending to a fast reader lets others run
            elif cursor.position < state.reached or cursor.notice < state.notice:
                state = await self._refreshed(state)
            else:
                if is_behind:
                    is_behind = False
                    await frames.send(self._events.caught_up(cursor.position, state.lag_ms))
                state = await self._head.beyond(state, max(0, frames.heartbeat_in_s))

    async def _read(self, cursor: FeedCursor, state: FeedState) -> Read:
        try:
            return await self._feed.read(cursor, state, self._selection)
        except (StoreUnavailable, ReadModelUnavailable):
            await asyncio.sleep(_RETRY_S)
            return Read([], cursor)

    async def _refreshed(self, state: FeedState) -> FeedState:
        """Return a newer state, or the same after a moment."""
        with suppress(StoreUnavailable, ReadModelUnavailable):
            if (newer := await self._head.refresh())[:3] != state[:3]:
                return newer
        await asyncio.sleep(_RETRY_S)
        return state


class _Frames:
    """Sends frames. Raises TimeoutError if the reader does not take them in time."""

    def __init__(self, send: Send, times: Times) -> None:
        self._send = send
        self._times = times
        self._sent_at = asyncio.get_running_loop().time()

    @property
    def heartbeat_in_s(self) -> float:
        return self._sent_at + self._times.heartbeat - asyncio.get_running_loop().time()

    async def send(self, frames: bytes) -> None:
        async with asyncio.timeout(self._times.slow):
            await self._send({"type": "http.response.body", "body": frames, "more_body": True})
        self._sent_at = asyncio.get_running_loop().time()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
