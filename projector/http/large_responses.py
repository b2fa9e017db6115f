"""Large responses are sent in pieces, as fast as the client reads, and only so many bytes, or one, at a time."""

from typing import Final

from starlette.types import Message, Receive, Scope, Send

from projector.http.conditional_response import ConditionalResponse
from projector.http.problems import problem_response

MAX_SENDING_BYTES: Final = 16 * 1024 * 1024
PIECE_BYTES: Final = 128 * 1024


class LargeResponses:
    """Sends responses. While more than `max_bytes` of large ones are being sent, another large one becomes a 503."""

    def __init__(self, max_bytes: int = MAX_SENDING_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    async def send(self, response: ConditionalResponse, scope: Scope, receive: Receive, send: Send) -> None:
        if len(response.body) > PIECE_BYTES:
            send = self._in_pieces(scope, receive, send)
        await response(scope, receive, send)

    def _in_pieces(self, scope: Scope, receive: Receive, send: Send) -> Send:
        """Return a `send` for a response whose body is one message."""
        start: Message = {}

        async def send_in_pieces(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body = message["body"]
            if not body:  # a 304
                await send(start)
                await send(message)
            elif self._bytes and self._bytes + len(body) > self._max_bytes:
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
