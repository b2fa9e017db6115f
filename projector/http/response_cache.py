"""Responses kept, byte for byte, until the read model changes."""

from collections.abc import Callable, Hashable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from projector.http.conditional_response import ConditionalResponse
from projector.http.front_door import is_query
from projector.http.large_responses import LargeResponses

MAX_BYTES: Final = 16 * 1024 * 1024
_ENTRY_BYTES: Final = 1_000
"""The approximate size of the objects that hold a response, without its bytes."""


class ResponseCache:
    """Responses by their path and query. All are dropped when the read model changes, or when they exceed `max_bytes`.

    `version` identifies a state of the read model; if it returns None, nothing is kept.
    """

    def __init__(self, version: Callable[[], Hashable | None], max_bytes: int = MAX_BYTES) -> None:
        self.version = version
        self._max_bytes = max_bytes
        self._kept_version: Hashable | None = None
        self._bytes = 0
        self._responses: dict[tuple[bytes, bytes], ConditionalResponse] = {}

    def find(self, scope: Scope) -> ConditionalResponse | None:
        """Return the response to a request, if it was kept and the read model has not changed since."""
        if not self._responses or scope["method"] != "GET":
            return None
        if self.version() != self._kept_version:
            self._clear()
            return None
        return self._responses.get((scope["raw_path"], scope["query_string"]))

    def keep(self, scope: Scope, version: Hashable | None, response: ConditionalResponse) -> None:
        """Keep a response that was made from the read model at this or a later version."""
        if version is None or scope["method"] != "GET":
            return
        key = scope["raw_path"], scope["query_string"]
        size = _ENTRY_BYTES + sum(map(len, key)) + response.size
        if size > self._max_bytes:
            return
        if version != self._kept_version or self._bytes + size > self._max_bytes:
            self._clear()
        self._kept_version = version
        self._bytes += size
        self._responses[key] = response

    def _clear(self) -> None:
        self._responses.clear()
        self._bytes = 0


class CachedResponses:
    """Middleware that answers queries from the cache."""

    def __init__(self, app: ASGIApp, cache: ResponseCache, large_responses: LargeResponses) -> None:
        self._app = app
        self._cache = cache
        self._large_responses = large_responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._cache.find(scope) if is_query(scope) else None
        if response:
            await self._large_responses.send(response, scope, receive, send)
        else:
            await self._app(scope, receive, send)
