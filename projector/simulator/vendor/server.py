"""The fake as an ASGI application, with the faults of networks and of the vendor."""

from collections.abc import Callable
from email.utils import formatdate
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from projector.simulator.vendor.rest_api import RestApi, encode

Fault: TypeAlias = Literal["status 502", "HTML", "truncated", "cut"] | int
"""What happens to a request instead of its answer; a number is an error code."""

_HTML: Final = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Request(NamedTuple):
    """A request that was received: its number from 1, its command, and when, in ms."""

    number: int
    command: str
    at_ms: int


class VendorServer:
    """Serves a RestApi. `before` is called before each request is answered; it may change groups, or return a fault."""

    def __init__(self, api: RestApi, before: Callable[[Request], Fault | None] = lambda _: None) -> None:
        self.requests: list[Request] = []
        self._api = api
        self._before = before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"]
        request = Request(len(self.requests) + 1, path.rpartition("/")[2], self._api.clock_ms())
        self.requests.append(request)
        status, content, length = self._respond(scope, path, body, self._before(request))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % length),
            (b"date", formatdate(self._api.clock_ms() // 1_000, usegmt=True).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _respond(self, scope: Scope, path: str, body: bytes, fault: Fault | None) -> tuple[int, bytes, int]:
        """Return the status, the content, and the length that it claims; a connection is cut if the two differ."""
        if fault == "status 502":
            return 502, _HTML, len(_HTML)
        if fault == "HTML":
            return 200, _HTML, len(_HTML)
        if isinstance(fault, int):
            content = encode({"ActionStatus": "FAIL", "ErrorCode": fault, "ErrorInfo": "simulated"})
            return 200, content, len(content)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        content = encode(self._api.answer(scope["method"], path, query, body))
        if fault == "truncated":
            return 200, content[: len(content) // 2], len(content) // 2
        return 200, content[: len(content) // 2] if fault == "cut" else content, len(content)
