"""A bare HTTP/1.1 connection that posts: a general client takes longer for a request than the receiver does."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Self
from urllib.parse import urlsplit


class Unreachable(Exception):
    """The receiver cannot be reached; the text says where, and why."""


class Answer(NamedTuple):
    """An answer's status and headers; header names are in lower case."""

    status: int
    headers: dict[str, str]


class Connection:
    """One kept-alive connection to a base address, as an asynchronous context manager."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unreachable(f"{url!r} is not an address; give one like http://127.0.0.1:8000")
        self._url, self._host, self._tls = url, parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")

    async def __aenter__(self) -> Self:
        try:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
        except OSError as error:
            raise Unreachable(f"nothing answers at {self._url} ({error}); is `projector serve` running?") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, target: str, body: bytes) -> Answer:
        """Post a body to a path with query, and return what is answered. Raises Unreachable."""
        lines = (
            f"POST {self._path}{target} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Content-Length: {len(body)}",
        )
        head = "\r\n".join((*lines, "\r\n"))
        try:
            self._writer.write(head.encode("ascii") + body)
            await self._writer.drain()
            answered = await self._reader.readuntil(b"\r\n\r\n")
            answer = _parse(answered.decode("latin-1"))
            await self._reader.readexactly(int(answer.headers.get("content-length", "0")))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Unreachable(f"{self._url} hung up ({error})") from error
        return answer


def _parse(head: str) -> Answer:
    status_line, *lines = head.split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return Answer(int(status_line.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs})
