"""What one connection may take: how long it may be about a request, and how long the head of one may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

MAX_HEAD_BYTES: Final = 16 * 1024
"""The vendor's addresses and headers are below one kilobyte."""

REQUEST_S: Final = 10.0
"""How long a sender may take to send a whole request; the vendor itself gives up after two seconds."""


MAX_CONNECTIONS: Final = 2_000
"""For a further one another is dropped, before files run out."""

LAST_S: Final = 2.0
"""How long a server that stops waits for the rest of a request; the vendor would not wait longer."""


class GuardedProtocol(HttpToolsProtocol):
    """The web server's protocol, for senders who never finish, heads that never end, and askers who do not read.

    A connection is dropped when it has sent nothing, or not all of a request, for REQUEST_S to twice as long, when the
    head of a request grows beyond MOST_HEAD_BYTES, and, when there are too many, if it has been idle the longest, so
    that whoever comes to say something is heard. So it is when nothing of an answer was read for REQUEST_S to twice as
    long. While a request is answered, nobody is hurried.
    """

    _idle: ClassVar[dict[GuardedProtocol, None]] = {}
    """Those of which no request is being answered, the longest idle first."""

    _is_head = True
    _head_bytes = 0
    _waiting_since: float | None = None
    _unsent = 0
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the connection."""
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        self._idle[self] = None
        if len(self.connections) > MAX_CONNECTIONS:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.transport.abort()
        self._watch = self.loop.call_later(REQUEST_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to watch it."""
        if self._watch is not None:
            self._watch.cancel()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what was sent, unless it is too much of a head."""
        if self._is_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_head and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._waiting_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """End the head of a request."""
        super().on_headers_complete()
        self._is_head, self._head_bytes = False, 0

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        self._is_head, self._waiting_since = True, None
        if self.cycle is not None and not self.cycle.response_complete:
            self._idle.pop(self, None)

    def on_response_complete(self) -> None:
        """End an answer."""
        if not self.transport.is_closing():
            self._idle[self] = None
        super().on_response_complete()

    def shutdown(self) -> None:
        """Answer what was sent, or is still sent soon."""
        super().shutdown()
        if self._waiting_since is not None:
            self.loop.call_later(LAST_S, self._give_up)

    def _give_up(self) -> None:
        if self._waiting_since is not None:
            self.transport.abort()

    def _look(self) -> None:
        since = self._waiting_since
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        is_slow = since is not None and self.loop.time() - since >= REQUEST_S
        if is_slow or 0 < unsent <= self._unsent:
            self.transport.abort()
            return
        self._watch = self.loop.call_later(REQUEST_S, self._look)
