"""Runs a query: waits for a position, opens one session, encodes the answer, and makes the response."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar, TypeVarTuple
from urllib.parse import parse_qsl, urlencode

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.types import Receive, Scope, Send

from projector.event_store import EventStore
from projector.http.conditional_response import ConditionalResponse
from projector.http.large_responses import LargeResponses
from projector.http.parameters import Parameters, read_parameters
from projector.http.problems import Problem
from projector.http.queries import QueryEndpoints, reached_position
from projector.http.reached_position import POLL_S, ReachedPosition
from projector.http.response_cache import MAX_BYTES, ResponseCache
from projector.http.routes import Route
from projector.read_model import Queries

_MAX_WAIT_S: Final = 2.0
_MAX_SHORT_PAGE: Final = 100
"""A longer page takes longer than a millisecond."""

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")
_encode: Final = msgspec.json.Encoder().encode


class Result(NamedTuple):
    """An encoded answer, the cursor of the next page, and the position of the read model."""

    body: bytes
    following: str | None
    position: int


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
    ) -> None:
        self.cache = ResponseCache(queries.version, max_cached_bytes)
        self._endpoints = QueryEndpoints(store)
        self._queries = queries
        self._threads = CapacityLimiter(threads)
        self._short_at_once = short_at_once
        self._reached = ReachedPosition(self._read_position, poll_s)
        self.wake = self._reached.wake

    async def respond(self, route: Route, scope: Scope) -> ConditionalResponse:
        """Return the response to a request. Raises Problem, StoreUnavailable and ReadModelUnavailable."""
        parameters = read_parameters(scope, route)
        await self._wait_for(max(parameters.position or 0, parameters.wait_for))
        version = self.cache.version() if route.is_cached else None
        is_short = route.is_short and parameters.is_now and parameters.limit <= _MAX_SHORT_PAGE
        response = _response(scope, await self._call(self._run, route, parameters, is_short=is_short))
        self.cache.keep(scope, version, response)
        return response

    def _run(self, route: Route, parameters: Parameters) -> Result:
        with self._queries.session() as session:
            position = reached_position(session)
            try:
                answer = route.endpoint(self._endpoints, session, parameters)
            except Problem as problem:
                headers = {"Projector-Position": str(position)}
                raise Problem(problem.status_code, problem.detail, headers) from None
        return Result(_encode(answer), getattr(answer, "next", None), position)

    async def _wait_for(self, position: int) -> None:
        if position and (reached := await self._reached.wait(position, _MAX_WAIT_S)) < position:
            raise Problem(
                503,
                f"The read model is at position {reached} and did not reach {position} in time.",
                {"Retry-After": "1", "Projector-Position": str(reached)},
            )

    async def _read_position(self) -> int:
        return await self._call(self._position, is_short=True)

    def _position(self) -> int:
        with self._queries.session() as session:
            return reached_position(session)

    async def _call(self, work: Callable[[*_Arguments], _T], *arguments: *_Arguments, is_short: bool) -> _T:
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
    etag = f'"{blake2b(result.body, digest_size=12).hexdigest()}"'
    headers = [
        (b"projector-position", b"%d" % result.position),
        (b"etag", etag.encode()),
        (b"cache-control", b"private, no-cache"),
    ]
    if result.following:
        headers.append((b"link", f'<{_next_page(scope, result.following)}>; rel="next"'.encode("latin-1")))
    return ConditionalResponse(etag, result.body, tuple(headers))


def _next_page(scope: Scope, cursor: str) -> str:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in ("cursor", "wait_for")]
    return f"{scope['path']}?{urlencode([*kept, ('cursor', cursor)])}"
