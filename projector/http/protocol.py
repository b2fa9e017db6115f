"""Limits of a connection: the time for a request, the size of its head, and the number of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from projector.http.gathered_writes import GatheredWrites

MAX_HEAD_BYTES: Final = 16 * 1024
"""The vendor's request lines and headers are below one kilobyte."""

REQUEST_S: Final = 10.0
"""The time in which a whole request must arrive; the vendor itself gives up after two seconds."""

MAX_CONNECTIONS: Final = 2_000
"""More connections to one `serve` drop idle ones, before a process runs out of files."""

SHUTDOWN_S: Final = 2.0
"""How long a server that stops waits for the rest of a request; the vendor would not wait longer."""


class GuardedProtocol(HttpToolsProtocol):
    """The web server's protocol, which drops connections that would hold resources without end.

    A connection is dropped if, for REQUEST_S to twice as long, no complete request arrives or the client reads nothing
    of a response; if the head of a request is larger than MAX_HEAD_BYTES; and, while there are more than
    `max_connections`, if it has been idle the longest. There is no limit on how long a request is processed.
    """

    _idle: ClassVar[dict[GuardedProtocol, None]] = {}
    """The connections without a request in progress, the longest idle first."""

    _is_head = True
    _head_bytes = 0
    _waiting_since: float | None = None
    _unsent = 0
    _timer: asyncio.TimerHandle | None = None
    on_shutdown: Callable[[], None] | None = None
    """Called when the server stops: a response that does not end by itself ends then."""

    max_connections: ClassVar[int] = MAX_CONNECTIONS

    @property
    def is_between_requests(self) -> bool:
        """Whether the next byte begins a request, and the response to the last one is complete."""
        return self._is_head and not self._head_bytes and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", GatheredWrites(transport, self.loop)))
        self._waiting_since = self.loop.time()
        self._idle[self] = None
        if len(self.connections) > self.max_connections:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.transport.abort()
        self._timer = self.loop.call_later(REQUEST_S, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_head and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["connection"] = self
        self._waiting_since = self.loop.time()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._is_head, self._head_bytes = False, 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_head, self._waiting_since = True, None
        if self.cycle is not None and not self.cycle.response_complete:
            self._idle.pop(self, None)

    def on_response_complete(self) -> None:
        if not self.transport.is_closing():
            self._idle[self] = None
        super().on_response_complete()

    def shutdown(self) -> None:
        """Finish the requests that have begun, if the rest of them arrives in time."""
        super().shutdown()
        if self.on_shutdown is not None:
            self.on_shutdown()
        if self._waiting_since is not None:
            self.loop.call_later(SHUTDOWN_S, self._abort_if_incomplete)

    def cut(self, last: bytes) -> None:
        """End a chunked response, whatever of it the client has still to read, and close the connection."""
        self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))
        self.transport.close()
        self.loop.call_later(REQUEST_S, self.transport.abort)

    def _abort_if_incomplete(self) -> None:
        if self._waiting_since is not None:
            self.transport.abort()

    def _check(self) -> None:
        since = self._waiting_since
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        is_slow = since is not None and self.loop.time() - since >= REQUEST_S
        if is_slow or 0 < unsent <= self._unsent:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(REQUEST_S, self._check)
