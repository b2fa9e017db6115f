"""The application: which door an address leads to, and who may pass."""

from __future__ import annotations

import contextlib
import hmac
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from projector.event_store import StoreUnavailable
from projector.http import openapi
from projector.http.large_responses import PIECE_BYTES, LargeResponses
from projector.http.problems import on_http_exception, on_unavailable, on_unexpected, problem_response
from projector.http.response_cache import send_again
from projector.read_model import ReadModelUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from projector.event_store.spool import SpoolStatus
    from projector.health import Health
    from projector.http.ingest import Ingest
    from projector.http.metrics import Metrics
    from projector.http.queries import QueryEndpoints
    from projector.http.response_cache import ResponseCache
    from projector.settings import ReadToken


class Components(NamedTuple):
    """What this process serves; None is left out. `running` is entered while the server runs.

    With a `callbacks_port`, callbacks are received there and nothing else is, but for `/livez`.
    """

    health: Callable[[], Health]
    metrics: Metrics
    running: Callable[[], AbstractAsyncContextManager[None]]
    ingest: Ingest | None = None
    questions: QueryEndpoints | None = None
    spooled: Callable[[], SpoolStatus] | None = None
    read_tokens: tuple[ReadToken, ...] = ()
    callbacks_port: int | None = None


def create_app(parts: Components) -> ASGIApp:
    """Return the ASGI application of one process."""
    routes = [
        Route("/livez", _alive),
        Route("/readyz", _Readiness(parts.health, parts.spooled).answer),
        Route("/metrics", _Exposition(parts.metrics).answer),
    ]
    if parts.questions:
        routes += [*parts.questions.routes(), Route("/openapi.json", _Document(secured=bool(parts.read_tokens)).answer)]

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with parts.running():
            yield

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: on_http_exception,
            StoreUnavailable: on_unavailable,
            ReadModelUnavailable: on_unavailable,
            Exception: on_unexpected,
        },
    )
    app.router.redirect_slashes = False
    remembered = parts.questions.remembered if parts.questions else None
    return _FrontDoor(app, parts, remembered)


class _FrontDoor:
    """Lets callbacks through, checks bearer tokens before any other work, and gives known answers again.

    An id in a path may hold an encoded `/`, so paths are split before they are decoded.
    """

    def __init__(self, app: ASGIApp, parts: Components, remembered: ResponseCache | None) -> None:
        self._app = app
        self._ingest = parts.ingest
        self._remembered = remembered
        self._callbacks_port = parts.callbacks_port
        self._read_tokens = [one.token.encode() for one in parts.read_tokens]
        self._sending = LargeResponses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            is_callback = self._ingest is not None and scope["path"] == self._ingest.path
            if self._callbacks_port is not None and scope["path"] != "/livez":
                is_for_callbacks = scope["server"][1] == self._callbacks_port
                if is_for_callbacks != is_callback:
                    await problem_response(404, "There is nothing at this address.")(scope, receive, send)
                    return
            if self._ingest and is_callback:
                await self._ingest(scope, receive, send)
                return
            is_question = scope["path"].startswith("/v1/")
            if not is_question and scope["path"] != "/metrics":
                await self._app(scope, receive, send)
                return
            if self._read_tokens and not self._permitted(scope):
                refusal = problem_response(
                    401, "Send one of PROJECTOR_READ_TOKENS as a bearer token.", {"WWW-Authenticate": "Bearer"}
                )
                await refusal(scope, receive, send)
                return
            answer = self._remembered.find(scope) if self._remembered else None
            if is_question and (answer is None or len(answer.body) > PIECE_BYTES):
                send = self._sending.in_pieces(scope, receive, send)
            if answer:
                await send_again(answer, scope, send)
                return
            if is_question:
                scope["path"] = scope["raw_path"].decode("ascii", "replace")
        await self._app(scope, receive, send)

    def _permitted(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        matches = [hmac.compare_digest(token.strip(), known) for known in self._read_tokens]
        return scheme.lower() == b"bearer" and any(matches)


async def _alive(_: Request) -> Response:
    return _json(200, {"status": "alive"})


class _Readiness:
    def __init__(self, health: Callable[[], Health], spooled: Callable[[], SpoolStatus] | None) -> None:
        self._health = health
        self._spooled = spooled

    async def answer(self, _: Request) -> Response:
        """Answer 200, or 503 with what keeps the projections from being right and recent."""
        seen: dict[str, Any] = {}
        try:
            if self._spooled:
                spooled = self._spooled()
                seen["spool"] = {"events": spooled.depth, "seconds": spooled.age_s()}
            health = await to_thread.run_sync(self._health)
        except (StoreUnavailable, ReadModelUnavailable) as error:
            return _json(503, {"status": "not ready", **seen, "complaints": [str(error)]})
        complaints = health.complaints()
        seen |= {"head": health.head, "positions": health.positions, "lag_seconds": health.lag_ms / 1000}
        status = "not ready" if complaints else "ready"
        return _json(503 if complaints else 200, {"status": status, **seen, "complaints": complaints})


class _Exposition:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def answer(self, _: Request) -> Response:
        """Answer all numbers in Prometheus's text format."""
        exposition = await to_thread.run_sync(self._metrics.exposition)
        return Response(exposition, media_type="text/plain; version=0.0.4")


class _Document:
    def __init__(self, *, secured: bool) -> None:
        self._body = msgspec.json.encode(openapi.document(secured=secured))

    async def answer(self, _: Request) -> Response:
        """Answer the OpenAPI document."""
        return Response(self._body, media_type="application/json")


def _json(status: int, content: Any) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
