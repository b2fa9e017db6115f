"""Passing connections on, between the processes of one `serve`, to the one that answers their next request."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from projector.http.protocol import MAX_HEAD_BYTES, GuardedProtocol

MAX_BYTES: Final = 64 * 1024
"""The most that is passed on with a connection; requests for other roles have no bodies."""

_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Handoff(NamedTuple):
    """How a process passes connections on, and gets them. `is_for_others` is called with local port and path."""

    arriving: socket.socket
    leaving: socket.socket
    is_for_others: Callable[[int | None, bytes], bool]


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Return two sockets: whatever is sent to the second arrives at the first, in one piece, at one reader of many."""
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    arriving, leaving = socket.socketpair(socket.AF_UNIX, kind)
    arriving.setblocking(False)
    leaving.setblocking(False)
    return arriving, leaving


def receive(arriving: socket.socket) -> tuple[socket.socket, bytes] | None:
    """Return a connection and what was read from it, None if another process was faster."""
    try:
        data, descriptors, _, _ = socket.recv_fds(arriving, MAX_BYTES, 1)
    except BlockingIOError:
        return None
    if not descriptors:
        return None
    connection = socket.socket(fileno=descriptors[0])
    connection.setblocking(False)
    return connection, data


class MovingProtocol(GuardedProtocol):
    """The protocol of connections that are passed on when a request begins that another process answers.

    `arrived` is what the process that had the connection before has read from it.
    """

    def __init__(self, *args: Any, handoff: Handoff, arrived: bytes = b"", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handoff = handoff
        self._arrived = arrived
        self._begun = b""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._arrived:
            self.data_received(self._arrived)

    def data_received(self, data: bytes) -> None:
        if self.is_between_requests:
            data, self._begun = self._begun + data, b""
            path = _path(data)
            if path is None and _may_be_request_line(data):
                self._begun = data
                return
            if path is not None and self._handoff.is_for_others(self.server[1] if self.server else None, path):
                self._pass_on(data)
                return
        super().data_received(data)

    def _pass_on(self, data: bytes) -> None:
        with suppress(OSError):  # there are too many in the channel, or the request is too large
            if len(data) <= MAX_BYTES and not self.transport.get_write_buffer_size():
                socket.send_fds(self._handoff.leaving, [data], [self.transport.get_extra_info("socket").fileno()])
                self.transport.abort()  # closes this process's descriptor, and not the connection
                return
        self.transport.write(_BUSY)
        self.transport.close()


def _path(data: bytes) -> bytes | None:
    """Return the path of the request that begins here, None if the request line is not complete."""
    parts = data.lstrip(b"\r\n").split(b" ", 2)
    return parts[1].partition(b"?")[0] if len(parts) > 2 else None


def _may_be_request_line(data: bytes) -> bool:
    return len(data) <= MAX_HEAD_BYTES and data[:1].isalpha() and b"\n" not in data
