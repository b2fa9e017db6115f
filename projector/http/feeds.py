"""The endpoints of the feeds: pages in several forms, which may wait for their first message, and streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.types import Receive, Scope, Send

from projector.feeds.cursor import Cursors, FeedCursor, HistoryChanged
from projector.feeds.feed import Feed, Item
from projector.feeds.log import FeedState
from projector.http.conditional_response import ConditionalResponse
from projector.http.cursors import Cursor
from projector.http.feed_forms import (
    EVENT_STREAM,
    JSON,
    NDJSON,
    CloudEvents,
    ServerSentEvents,
    accepted_form,
    lines,
)
from projector.http.feed_head import FeedHead
from projector.http.feed_parameters import FeedParameters, last_event_id, read_feed_parameters
from projector.http.large_responses import LargeResponses
from projector.http.problems import Problem
from projector.http.streams import HEADERS, Connection, Stream, StreamLimit, Times
from projector.read_model.pages import MAX_PAGE_BYTES

MAX_EXAMINED: Final = 5_000
"""A page that selects few messages ends after so many positions."""


class FeedPage(NamedTuple):
    """The items of a page, the cursor after everything that was examined, and the state of the feed."""

    items: list[Item]
    cursor: FeedCursor
    state: FeedState

    @property
    def caught_up(self) -> bool:
        return self.cursor.position >= self.state.reached and self.cursor.notice >= self.state.notice


class FeedRoute(NamedTuple):
    """A feed's path and shapes. `body` returns its JSON body; `list_cursor` is that of the list that it was before."""

    path: str
    operation_id: str
    summary: str
    description: str
    answer: type[msgspec.Struct]
    body: Callable[[FeedPage], msgspec.Struct]
    event_name: str
    cloud_event: str
    list_cursor: Cursor | None = None


class Followers(NamedTuple):
    """What all feeds of a process share. `wait_for` waits for a position of the read model."""

    head: FeedHead
    cursors: Cursors
    wait_for: Callable[[int], Awaitable[None]]
    streams: StreamLimit
    source: str
    run: Callable[..., Awaitable[Any]]
    times: Times = Times()


class FeedEndpoint:
    """The ASGI application of one feed."""

    def __init__(self, route: FeedRoute, feed: Feed, followers: Followers, large_responses: LargeResponses) -> None:
        self._route = route
        self._feed = feed
        self._followers = followers
        self._large_responses = large_responses
        self._events = ServerSentEvents(route.event_name)
        self._cloud_events = CloudEvents(route.cloud_event, followers.source)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parameters = read_feed_parameters(scope, self._route.list_cursor)
        form = accepted_form(scope)
        await self._followers.wait_for(parameters.wait_for)
        if form == EVENT_STREAM:
            await self._stream(parameters, scope, receive, send)
            return
        try:
            page = await _unless_ended(self._page(parameters), scope, receive, waits=parameters.wait > 0)
        except HistoryChanged as error:
            raise Problem(409, f"Read everything again: {error}.", kind="history-changed") from None
        if page is not None:
            response = self._response(scope, parameters, form, page)
            await self._large_responses.send(response, scope, receive, send)

    async def _cursor(self, after: FeedCursor | int | None, state: FeedState) -> FeedCursor:
        cursors = self._followers.cursors
        if after is None:
            newest: FeedCursor = await self._followers.run(cursors.at, state.reached, state.notice, is_short=True)
            return newest
        proven: FeedCursor = await self._followers.run(
            cursors.of, after, state.notice, state.history_change, is_short=True
        )
        return proven

    async def _page(self, parameters: FeedParameters) -> FeedPage:
        """Return a page with at most `limit` items. Raises HistoryChanged, and Problem if too many requests wait."""
        head = self._followers.head
        deadline = asyncio.get_running_loop().time() + parameters.wait
        state = await head.refresh()
        cursor = first = await self._cursor(parameters.after, state)
        builder = _PageBuilder(parameters.limit)
        while True:
            read = await self._feed.read(cursor, state, parameters.selection)
            previous, cursor = cursor, builder.add(read.items, read.cursor)
            if builder.is_full or cursor.position - first.position >= MAX_EXAMINED:
                break
            if cursor != previous:
                continue
            remaining = deadline - asyncio.get_running_loop().time()
            if builder.items or remaining <= 0:
                break
            newer = await head.beyond_for_request(state, remaining)
            if newer[:3] == state[:3]:
                break
            state = newer
        return FeedPage(builder.items, cursor, state)

    async def _stream(self, parameters: FeedParameters, scope: Scope, receive: Receive, send: Send) -> None:
        if parameters.wait:
            raise Problem(400, "The parameter 'wait' is not for streams, which wait in any case.")
        after = last_event_id(scope)
        with self._followers.streams.one_more(scope.get("read_token")):
            state = await self._followers.head.refresh()
            try:
                cursor = await self._cursor(parameters.after if after is None else after, state)
            except HistoryChanged as error:
                await _send_only(self._events.reset(str(error)), send)
                return
            if scope["method"] == "HEAD":
                await _send_only(b"", send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            stream = Stream(self._feed, self._followers.head, self._events, parameters.selection, self._followers.times)
            await stream.send(cursor, state, scope, receive, send)

    def _response(self, scope: Scope, parameters: FeedParameters, form: str, page: FeedPage) -> ConditionalResponse:
        headers = [
            (b"projector-cursor", str(page.cursor).encode()),
            (b"projector-head", b"%d" % page.state.head),
            (b"vary", b"Accept"),
        ]
        if not page.caught_up:
            # Readers that go by positions get the cursor of a list, as they always have.
            by_position = self._route.list_cursor if isinstance(parameters.after, int) else None
            following = (
                ("cursor", by_position.encode(page.cursor.position)) if by_position else ("after", str(page.cursor))
            )
            headers.append((b"link", f'<{_next_page(scope, *following)}>; rel="next"'.encode("latin-1")))
        return ConditionalResponse.of(self._body(form, page), page.state.reached, headers, form)

    def _body(self, form: str, page: FeedPage) -> bytes:
        if form == JSON:
            return msgspec.json.encode(self._route.body(page))
        return lines(page.items) if form == NDJSON else self._cloud_events.batch(page.items)


class _PageBuilder:
    """Gathers items until a page is full."""

    def __init__(self, limit: int) -> None:
        self.items: list[Item] = []
        self.is_full = False
        self._limit = limit
        self._bytes = 0

    def add(self, items: Sequence[Item], cursor: FeedCursor) -> FeedCursor:
        """Add items as far as they fit, and return the cursor after the last; `cursor` if all of them do."""
        for item in items:
            self._bytes += len(item.data)
            if len(self.items) == self._limit or (self.items and self._bytes > MAX_PAGE_BYTES):
                self.is_full = True
                return self.items[-1].cursor
            self.items.append(item)
        self.is_full = len(self.items) == self._limit
        return cursor


async def _unless_ended(
    page: Coroutine[Any, Any, FeedPage], scope: Scope, receive: Receive, *, waits: bool
) -> FeedPage | None:
    """Return a page, None if the client goes away before. Raises Problem if it waits and the server stops."""
    reading = asyncio.create_task(page)
    gone = asyncio.create_task(_disconnected(receive))
    stopping = asyncio.Event()
    stopped = asyncio.create_task(stopping.wait())
    connection: Connection = scope["connection"]
    connection.on_shutdown = stopping.set if waits else None
    try:
        await asyncio.wait({reading, gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return reading.result()
        if stopped.done():
            raise Problem(503, "The server stops.", {"Retry-After": "1"})
        return None
    finally:
        connection.on_shutdown = None
        for task in (reading, gone, stopped):
            task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_only(frames: bytes, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": frames})


def _next_page(scope: Scope, parameter: str, cursor: str) -> str:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in (parameter, "wait", "wait_for")]
    return f"{scope['path']}?{urlencode([*kept, (parameter, cursor)])}"
