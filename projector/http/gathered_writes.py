"""A connection's transport that sends the head and the body of a response together."""

import asyncio
from typing import Any, Final

MAX_GATHERED_BYTES: Final = 64 * 1024
"""From so many bytes on, nothing is held back, so that the web server sees when the client reads too slowly."""


class GatheredWrites:
    """A transport whose writes within one turn of the event loop are one system call.

    The web server writes head and body separately: two packets, and 5 µs more for each response. Whatever is not
    defined here is the transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._chunks: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._chunks:
            self._call_soon(self._flush)
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= MAX_GATHERED_BYTES:
            self._flush()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the client, after sending what was gathered."""
        self._flush()
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        chunks, self._chunks, self._size = self._chunks, [], 0
        if chunks and not self.is_closing():
            self._transport.writelines(chunks)
