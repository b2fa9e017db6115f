"""Middlewares that decide, before anything is routed, which requests are served and by which application."""

import hmac
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from projector.http.problems import problem_response
from projector.settings import ReadToken


def is_query(scope: Scope) -> bool:
    """Tell whether a request is for a path below `/v1`."""
    is_below: bool = scope["type"] == "http" and scope["path"].startswith("/v1/")
    return is_below


class CallbackPort:
    """Serves callbacks, and nothing else but `/livez`, on one port; serves no callbacks on the others."""

    def __init__(self, app: ASGIApp, port: int, callback_path: str) -> None:
        self._app = app
        self._port = port
        self._callback_path = callback_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and (path := scope["path"]) != "/livez":
            is_callback_port = scope["server"][1] == self._port
            if is_callback_port != (path == self._callback_path):
                app = problem_response(404, "Not found at this address.")
        await app(scope, receive, send)


class CallbackPath:
    """Passes callbacks to their application, and all other requests on."""

    def __init__(self, app: ASGIApp, callbacks: ASGIApp, path: str) -> None:
        self._app = app
        self._callbacks = callbacks
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_callback = scope["type"] == "http" and scope["path"] == self._path
        await (self._callbacks if is_callback else self._app)(scope, receive, send)


OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/openapi.json"})
"""All other paths need a token, whether or not they exist. `/readyz` shows details only to those who send one."""


class BearerTokens:
    """Requires one of the tokens, except for open paths, and notes in the scope which was sent."""

    def __init__(self, app: ASGIApp, tokens: Iterable[ReadToken]) -> None:
        self._app = app
        self._tokens = [token.token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            scope["read_token"] = self._read_token(scope)
            scope["is_authorized"] = scope["read_token"] is not None
            if not scope["is_authorized"] and scope["path"] not in OPEN_PATHS:
                app = problem_response(
                    401, "Send one of PROJECTOR_READ_TOKENS as a bearer token.", {"WWW-Authenticate": "Bearer"}
                )
        await app(scope, receive, send)

    def _read_token(self, scope: Scope) -> int | None:
        """Return the number of the token that was sent, None if it is wrong or missing."""
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = authorization.partition(b" ")
        matches = [hmac.compare_digest(token.strip(), known) for known in self._tokens]
        return matches.index(True) if scheme.lower() == b"bearer" and any(matches) else None


class EncodedPaths:
    """Routes queries by their percent-encoded path, since an id may contain an encoded `/`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_query(scope):
            scope["path"] = scope["raw_path"].decode("ascii", "replace")
        await self._app(scope, receive, send)
