"""Runs a query: waits for a position, opens one session, encodes the answer, and makes the response."""

import time
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple, TypeVar, TypeVarTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.types import Receive, Scope, Send

from projector.event_store import EventStore
from projector.feeds.cursor import Cursors
from projector.feeds.feed import read_state
from projector.feeds.log import FeedState
from projector.http.conditional_response import ConditionalResponse
from projector.http.feed_head import MAX_WAITING, FeedHead
from projector.http.large_responses import LargeResponses
from projector.http.parameters import Parameters, read_parameters
from projector.http.problems import Problem
from projector.http.queries import QueryEndpoints
from projector.http.reached_position import POLL_S, ReachedPosition
from projector.http.response_cache import MAX_BYTES, ResponseCache
from projector.http.routes import Route
from projector.read_model import Queries

_MAX_WAIT_S: Final = 2.0
_NOTICE_S: Final = 1.0
_MAX_SHORT_PAGE: Final = 100
"""A longer page takes longer than a millisecond."""

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")
_encode: Final = msgspec.json.Encoder().encode


class Result(NamedTuple):
    """An encoded answer, the cursor of the next page, the position of the read model, and where changes follow."""

    body: bytes
    following: str | None
    position: int
    changes: str | None


class QueryRunner:
    """Runs the queries of all routes, in at most so many `threads`; short ones in the event loop if `short_at_once`.

    Clients that wait for a position are served on `wake`, or when the read model is polled.
    """

    def __init__(
        self,
        store: EventStore,
        queries: Queries,
        *,
        threads: int,
        short_at_once: bool,
        poll_s: float = POLL_S,
        max_cached_bytes: int = MAX_BYTES,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.cache = ResponseCache(self._version, max_cached_bytes)
        self.cursors = Cursors(store)
        self._notice = (-_NOTICE_S, 0)
        self._endpoints = QueryEndpoints(store)
        self.store = store
        self.queries = queries
        self._threads = CapacityLimiter(threads)
        self._short_at_once = short_at_once
        self._reached = ReachedPosition(self._read_position, poll_s)
        self.wake = self._reached.wake
        self.head = FeedHead(self._read_state, self._reached, max_waiting)

    async def respond(self, route: Route, scope: Scope) -> ConditionalResponse:
        """Return the response to a request. Raises Problem, StoreUnavailable and ReadModelUnavailable."""
        parameters = read_parameters(scope, route)
        await self.wait_for(max(parameters.position or 0, parameters.wait_for))
        version = self.cache.version() if route.is_cached else None
        is_short = route.is_short and parameters.is_now and parameters.limit <= _MAX_SHORT_PAGE
        response = _response(scope, await self.run(self._run, route, parameters, is_short=is_short))
        self.cache.keep(scope, version, response)
        return response

    def _run(self, route: Route, parameters: Parameters) -> Result:
        is_followed = route.is_followed and parameters.cursor is None and parameters.at is None
        # The notices are read first: their effects are then already in the answer.
        notice = self._newest_notice() if is_followed else 0
        with self.queries.session() as session:
            position = session.reached()
            try:
                answer = route.endpoint(self._endpoints, session, parameters)
            except Problem as problem:
                headers = {"Projector-Position": str(position)}
                raise Problem(problem.status_code, problem.detail, headers) from None
        changes = None
        if is_followed:
            cursor = self.cursors.at(position if parameters.position is None else parameters.position, notice)
            changes = f"/v1/changes?{urlencode({'after': str(cursor), 'group_id': parameters.group_id})}"
        return Result(_encode(answer), getattr(answer, "next", None), position, changes)

    def _newest_notice(self) -> int:
        """Return the newest notice, or that of a second ago: a link with an older one leads to the same and more."""
        read_at, notice = self._notice
        if time.monotonic() > read_at + _NOTICE_S:
            notice = self.store.notices.newest()
            self._notice = (time.monotonic(), notice)
        return max(notice, self.head.newest_notice)

    async def wait_for(self, position: int) -> None:
        """Wait until the read model has reached a position. Raises Problem if that takes too long."""
        if position and (reached := await self._reached.wait(position, _MAX_WAIT_S)) < position:
            raise Problem(
                503,
                f"The read model is at position {reached} and did not reach {position} in time.",
                {"Retry-After": "1", "Projector-Position": str(reached)},
            )

    def _version(self) -> Hashable | None:
        """Return what cached responses depend on: the read model, and the notices that their links have seen."""
        version = self.queries.version()
        return None if version is None else (version, self.head.newest_notice)

    async def _read_state(self) -> FeedState:
        return await self.run(read_state, self.store, self.queries, is_short=True)

    async def _read_position(self) -> int:
        return await self.run(self._position, is_short=True)

    def _position(self) -> int:
        with self.queries.session() as session:
            return session.reached()

    async def run(self, work: Callable[[*_Arguments], _T], *arguments: *_Arguments, is_short: bool) -> _T:
        """Run work that reads the databases: in a thread, unless it is short and they are files."""
        if is_short and self._short_at_once:
            return work(*arguments)
        return await to_thread.run_sync(work, *arguments, limiter=self._threads)


class QueryRoute:
    """The ASGI application of one route."""

    def __init__(self, route: Route, runner: QueryRunner, large_responses: LargeResponses) -> None:
        self._route = route
        self._runner = runner
        self._large_responses = large_responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._runner.respond(self._route, scope)
        await self._large_responses.send(response, scope, receive, send)


def _response(scope: Scope, result: Result) -> ConditionalResponse:
    links = []
    if result.following:
        links.append(f'<{_next_page(scope, result.following)}>; rel="next"')
    if result.changes:
        links.append(f'<{result.changes}>; rel="changes"')
    headers = [(b"link", ", ".join(links).encode("latin-1"))] if links else []
    return ConditionalResponse.of(result.body, result.position, headers)


def _next_page(scope: Scope, cursor: str) -> str:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in ("cursor", "wait_for")]
    return f"{scope['path']}?{urlencode([*kept, ('cursor', cursor)])}"
