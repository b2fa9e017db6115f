"""Answers out: large ones in pieces, as fast as they are read, and so many bytes of them at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from projector.http.problems import problem_response

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

MAX_SENDING_BYTES: Final = 16 * 1024 * 1024
PIECE_BYTES: Final = 128 * 1024


class LargeResponses:
    """Keeps account of the large answers that are under way: whoever asks for more of them is answered 503."""

    def __init__(self) -> None:
        self._bytes = 0

    def in_pieces(self, scope: Scope, receive: Receive, send: Send) -> Send:
        """Return what an answer, whose body comes whole, is to be sent by."""
        begun: list[Message] = []

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            body = message.get("body", b"")
            if len(body) <= PIECE_BYTES:
                await send(begun[0])
                await send(message)
            elif self._bytes + len(body) > MAX_SENDING_BYTES:
                refusal = problem_response(503, "Too many large answers are being sent.", {"Retry-After": "1"})
                await refusal(scope, receive, send)
            else:
                await self._send(begun[0], body, send)

        return sending

    async def _send(self, start: Message, body: bytes, send: Send) -> None:
        self._bytes += len(body)
        try:
            await send(start)
            for begin in range(0, len(body), PIECE_BYTES):
                end = begin + PIECE_BYTES
                await send({"type": "http.response.body", "body": body[begin:end], "more_body": end < len(body)})
        finally:
            self._bytes -= len(body)
