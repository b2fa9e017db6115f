"""JSON responses, and the decision between 200 and 304."""

from typing import NamedTuple

from starlette.types import Receive, Scope, Send


class ConditionalResponse(NamedTuple):
    """A JSON response: 200 with its body or, if `If-None-Match` names its ETag, 304. The `headers` are for both."""

    etag: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def size(self) -> int:
        """The number of bytes in body and headers."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        status, body, headers = 304, b"", self.headers
        if not self._is_known_to_client(scope):
            about_body = ((b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json"))
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
