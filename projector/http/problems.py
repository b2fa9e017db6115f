"""Error responses, as RFC 9457 problem details."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_BLANK: Final = "about:blank"


class ProblemDetails(msgspec.Struct, rename={"kind": "type"}):
    """The body of an error response."""

    title: str
    status: int
    detail: str
    kind: str = _BLANK


class Problem(HTTPException):
    """A request that is answered with an error: an HTTP status, a sentence for the client, and the kind of problem."""

    def __init__(
        self, status_code: int, detail: str, headers: Mapping[str, str] | None = None, kind: str = _BLANK
    ) -> None:
        super().__init__(status_code, detail, headers)
        self.kind = kind


def problem_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None, kind: str = _BLANK
) -> Response:
    body = msgspec.json.encode(ProblemDetails(HTTPStatus(status).phrase, status, detail, kind))
    return Response(body, status, headers, media_type="application/problem+json")


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Return the response to a Problem, or to an exception of the router."""
    assert isinstance(error, HTTPException)
    kind = error.kind if isinstance(error, Problem) else _BLANK
    return problem_response(error.status_code, error.detail, error.headers, kind)


async def on_unavailable(_: Request, error: Exception) -> Response:
    """Return the response while the store or the read model cannot be read."""
    return problem_response(503, f"The database is unavailable ({error}).", {"Retry-After": "1"})


async def on_unexpected(_: Request, __: Exception) -> Response:
    """Return the response to an unexpected error, which the server logs."""
    return problem_response(500, "Internal error; see the log of the server.")
