"""Responses, and the decision between 200 and 304."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from starlette.types import Receive, Scope, Send


class ConditionalResponse(NamedTuple):
    """A response: 200 with its body or, if `If-None-Match` names its ETag, 304. The `headers` are for both."""

    etag: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    media_type: str = "application/json"

    @classmethod
    def of(
        cls,
        body: bytes,
        position: int,
        headers: Iterable[tuple[bytes, bytes]] = (),
        media_type: str = "application/json",
    ) -> ConditionalResponse:
        """Return the response with a body that was read at a position of the read model."""
        etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        of_every = (
            (b"projector-position", b"%d" % position),
            (b"etag", etag.encode()),
            (b"cache-control", b"private, no-cache"),
        )
        return cls(etag, body, (*of_every, *headers), media_type)

    @property
    def size(self) -> int:
        """The number of bytes in body and headers."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        status, body, headers = 304, b"", self.headers
        if not self._is_known_to_client(scope):
            about_body = ((b"content-length", b"%d" % len(self.body)), (b"content-type", self.media_type.encode()))
            status, body, headers = 200, self.body, (*headers, *about_body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _is_known_to_client(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"if-none-match":
                tags = [tag.strip().removeprefix("W/") for tag in value.decode("latin-1").split(",")]
                if "*" in tags or self.etag in tags:
                    return True
        return False
