"""Composes the ASGI application of one process from its components."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from projector.event_store import StoreUnavailable
from projector.event_store.reconciliations import RunReport
from projector.event_store.spool import SpoolStatus
from projector.health import Health
from projector.http.feed_routes import feed_routes
from projector.http.front_door import BearerTokens, CallbackPath, CallbackPort, EncodedPaths
from projector.http.ingest import Ingest
from projector.http.large_responses import MAX_SENDING_BYTES, LargeResponses
from projector.http.metrics import Metrics
from projector.http.operations import OpenAPIDocument, Operations, ReconciliationEndpoint, StatusEndpoint
from projector.http.problems import on_http_exception, on_unavailable, on_unexpected, problem_response
from projector.http.query_runner import QueryRoute, QueryRunner
from projector.http.response_cache import CachedResponses
from projector.http.routes import ROUTES
from projector.processes.board import Board
from projector.read_model import ReadModelUnavailable
from projector.settings import ReadToken
from projector.status import Status


class Components(NamedTuple):
    """The parts of a process; those that are None are left out. `running` is entered while the server runs.

    With a `callbacks_port`, that port serves callbacks and `/livez`, and the other one everything else. With
    `passes_on`, requests that have no route here are answered by another process. Limits of memory are shared by so
    many `query_processes`. `source` names the app in CloudEvents.
    """

    health: Callable[[], Health]
    metrics: Metrics
    running: Callable[[], AbstractAsyncContextManager[None]]
    board: Board
    ingest: Ingest | None = None
    queries: QueryRunner | None = None
    spooled: Callable[[], SpoolStatus] | None = None
    status: Callable[[], Status] | None = None
    reconciliation: Callable[[], RunReport | None] | None = None
    read_tokens: tuple[ReadToken, ...] = ()
    callbacks_port: int | None = None
    passes_on: bool = False
    query_processes: int = 1
    source: str = ""


def create_app(components: Components) -> ASGIApp:
    """Return the application. A callback passes one middleware, or two if it has a port of its own."""
    large_responses = LargeResponses(MAX_SENDING_BYTES // components.query_processes)
    app: ASGIApp = _router(components, large_responses)
    if components.queries:
        app = CachedResponses(EncodedPaths(app), components.queries.cache, large_responses)
    if components.read_tokens:
        app = BearerTokens(app, components.read_tokens)
    if components.ingest:
        app = CallbackPath(app, components.ingest, components.ingest.path)
        if components.callbacks_port is not None:
            app = CallbackPort(app, components.callbacks_port, components.ingest.path)
    return app


def _router(components: Components, large_responses: LargeResponses) -> Starlette:
    routes = Operations(components.health, components.metrics, components.board, components.spooled).routes()
    if components.status:
        routes.append(StatusEndpoint(components.status).route())
    if components.reconciliation:
        routes.append(ReconciliationEndpoint(components.reconciliation).route())
    if components.queries:
        routes += [
            Route(route.path, QueryRoute(route, components.queries, large_responses), methods=["GET"])
            for route in ROUTES
        ]
        routes += feed_routes(
            components.queries, large_responses, source=components.source, processes=components.query_processes
        )
        routes.append(OpenAPIDocument(secured=bool(components.read_tokens)).route())

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with components.running():
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
    if components.passes_on:
        # The connection could not be passed on, since an earlier request on it was still being answered.
        app.router.default = problem_response(421, "Wait for the response before sending a request of another kind.")
    return app
