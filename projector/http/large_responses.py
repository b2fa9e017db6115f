"""Large responses are sent in pieces, as fast as the client reads, and only so many bytes of them at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from projector.http.front_door import is_query
from projector.http.problems import problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_SENDING_BYTES: Final = 16 * 1024 * 1024
PIECE_BYTES: Final = 128 * 1024


class LargeResponses:
    """Middleware for queries. While too many bytes of large responses are being sent, another one becomes a 503."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, self._in_pieces(scope, receive, send) if is_query(scope) else send)

    def _in_pieces(self, scope: Scope, receive: Receive, send: Send) -> Send:
        """Return a `send` for a response whose body comes as one message."""
        start: Message = {}

        async def send_in_pieces(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body = message.get("body", b"")
            if len(body) <= PIECE_BYTES:
                await send(start)
                await send(message)
            elif self._bytes + len(body) > MAX_SENDING_BYTES:
                refusal = problem_response(503, "Too many large responses are being sent.", {"Retry-After": "1"})
                await refusal(scope, receive, send)
            else:
                await self._send(start, body, send)

        return send_in_pieces

    async def _send(self, start: Message, body: bytes, send: Send) -> None:
        self._bytes += len(body)
        try:
            await send(start)
            for begin in range(0, len(body), PIECE_BYTES):
                end = begin + PIECE_BYTES
                await send({"type": "http.response.body", "body": body[begin:end], "more_body": end < len(body)})
        finally:
            self._bytes -= len(body)
