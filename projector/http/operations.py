"""The endpoints for operators: liveness, readiness, metrics, the status, and the OpenAPI document."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from projector.event_store import StoreUnavailable
from projector.event_store.reconciliations import RunReport
from projector.event_store.spool import SpoolStatus
from projector.health import Health
from projector.http import openapi
from projector.http.metrics import Metrics
from projector.http.problems import Problem
from projector.processes.board import Board
from projector.read_model import ReadModelUnavailable
from projector.status import Readiness, Status, reconciliation_status

PATHS: Final = ("/livez", "/readyz", "/metrics")


class Operations:
    """The endpoints of every process. `spooled` is None without a spool."""

    def __init__(
        self,
        health: Callable[[], Health],
        metrics: Metrics,
        board: Board,
        spooled: Callable[[], SpoolStatus] | None,
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._board = board
        self._spooled = spooled

    def routes(self) -> list[Route]:
        endpoints = (self.livez, self.readyz, self.metrics)
        return [Route(path, endpoint) for path, endpoint in zip(PATHS, endpoints, strict=True)]

    async def livez(self, _: Request) -> Response:
        return _json(200, {"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """Return 200, or 503 with the reasons why the read model is not correct and current.

        Without a token, where tokens are set, only the status is shown: reasons may name hosts.
        """
        readiness = Readiness(status="ready", complaints=[])
        readiness.show_processes(self._board)
        try:
            if self._spooled:
                readiness.show_spool(self._spooled())
            readiness.show(await to_thread.run_sync(self._health))
        except (StoreUnavailable, ReadModelUnavailable) as error:
            readiness.complain([str(error)])
        shown = readiness if request.scope.get("is_authorized", True) else {"status": readiness.status}
        return _json(503 if readiness.complaints else 200, shown)

    async def metrics(self, _: Request) -> Response:
        exposition = await to_thread.run_sync(self._metrics.exposition)
        return Response(exposition, media_type="text/plain; version=0.0.4")


class StatusEndpoint:
    """The endpoint of `/v1/status`, which needs no read model."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def route(self) -> Route:
        return Route(openapi.STATUS_PATH, self.get)

    async def get(self, _: Request) -> Response:
        """Return the status. Raises StoreUnavailable and ReadModelUnavailable."""
        status = await to_thread.run_sync(self._status)
        response = _json(200, status)
        position = min(projection.position for projection in status.projections.values())
        response.headers["Projector-Position"] = str(position)
        response.headers["Cache-Control"] = "private, no-store"
        return response


class ReconciliationEndpoint:
    """The endpoint of `/v1/reconciliation`, which needs no read model."""

    def __init__(self, newest: Callable[[], RunReport | None]) -> None:
        self._newest = newest

    def route(self) -> Route:
        return Route(openapi.RECONCILIATION_PATH, self.get)

    async def get(self, _: Request) -> Response:
        """Return the newest run. Raises Problem before the first, and StoreUnavailable."""
        if (report := await to_thread.run_sync(self._newest)) is None:
            raise Problem(404, "No run has compared the groups with the REST API yet.")
        response = _json(200, reconciliation_status(report))
        response.headers["Cache-Control"] = "private, no-store"
        return response


class OpenAPIDocument:
    """The endpoint of `/openapi.json`."""

    def __init__(self, *, secured: bool) -> None:
        self._body = msgspec.json.encode(openapi.document(secured=secured))

    def route(self) -> Route:
        return Route("/openapi.json", self.get)

    async def get(self, _: Request) -> Response:
        return Response(self._body, media_type="application/json")


def _json(status: int, content: Any) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
