"""Errors to those who ask, as RFC 9457 problem details."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request


class ProblemDetails(msgspec.Struct, rename={"kind": "type"}):
    """The body of an error answer."""

    title: str
    status: int
    detail: str
    kind: str = "about:blank"


class Problem(HTTPException):
    """A question that gets an error answer: an HTTP status, and one sentence that says what to do."""


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as problem details."""
    body = msgspec.json.encode(ProblemDetails(HTTPStatus(status).phrase, status, detail))
    return Response(body, status, headers, media_type="application/problem+json")


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Answer an exception that carries a status: one of ours, or the router's own."""
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, error.detail, error.headers)


async def on_unavailable(_: Request, error: Exception) -> Response:
    """Answer while the store or the read model cannot be reached."""
    return problem_response(503, f"The data cannot be read at the moment ({error}).", {"Retry-After": "1"})


async def on_unexpected(_: Request, __: Exception) -> Response:
    """Answer what should not have happened; the server logs it."""
    return problem_response(500, "Something unexpected happened; the log of the server says what.")
