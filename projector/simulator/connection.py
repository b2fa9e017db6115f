"""A minimal HTTP/1.1 connection for POST: a general-purpose client takes longer for a request than the receiver."""

import asyncio
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

_TIMEOUT_S: Final = 30


class Unreachable(Exception):
    """The receiver cannot be reached. The text says where, and why."""


class Response(NamedTuple):
    """A response; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One kept-alive connection to a base address, as an asynchronous context manager."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Unreachable(f"{url!r} is not an address ({error})") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url!r} is not an address such as http://127.0.0.1:8000")
        self._url, self._host, self._tls = url, parts.hostname, parts.scheme == "https"
        self._port = port or (443 if self._tls else 80)
        self._host_header = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/")

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, target: str, body: bytes) -> Response:
        """Post a body to a path with query. Raises Unreachable.

        If the server has closed the idle connection, the body is sent again over a new one.
        """
        lines = (
            f"POST {self._path}{target} HTTP/1.1",
            f"Host: {self._host_header}",
            f"Content-Length: {len(body)}",
        )
        request = "\r\n".join((*lines, "\r\n")).encode("ascii") + body
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._exchange(request)
        except TimeoutError as error:
            raise Unreachable(f"{self._url} did not respond within {_TIMEOUT_S} s") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Unreachable(f"{self._url} closed the connection ({error})") from error
        except (ValueError, LookupError, asyncio.LimitOverrunError) as error:
            raise Unreachable(f"{self._url} did not respond with HTTP/1.1 and a Content-Length") from error

    async def _open(self) -> None:
        try:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
        except OSError as error:
            raise Unreachable(f"cannot connect to {self._url} ({error}); is `projector serve` running?") from error

    async def _exchange(self, request: bytes) -> Response:
        try:
            return await self._round_trip(request)
        except (OSError, asyncio.IncompleteReadError):
            self._writer.close()
            await self._open()
            return await self._round_trip(request)

    async def _round_trip(self, request: bytes) -> Response:
        self._writer.write(request)
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, headers = _parse(head.decode("latin-1"))
        return Response(status, headers, await self._reader.readexactly(int(headers["content-length"])))


def _parse(head: str) -> tuple[int, dict[str, str]]:
    """Return the status and the headers."""
    status_line, *lines = head.split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(status_line.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}
