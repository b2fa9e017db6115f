"""Reads a feed, makes each message durable, and delivers it, signed, to an endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx2

from projector.event_store import StoreUnavailable
from projector.feeds.cursor import FeedCursor
from projector.feeds.feed import Item, Read
from projector.forwarding.lanes import Lanes, Refused
from projector.forwarding.signing import signed_headers
from projector.forwarding.state import ForwardState, Pending
from projector.read_model import ReadModelUnavailable

MAX_LANES: Final = 10_000
MAX_MESSAGES: Final = 20_000
"""While more wait, nothing more is read."""

_POLL_S: Final = 0.1
_RETRY_S: Final = 1.0
_FLUSH_S: Final = 0.05
_TIMEOUT_S: Final = 15
_GONE: Final = 410
_EVERYBODY: Final = ""
"""The lane of notices about no group."""


class EndpointGone(Exception):
    """The endpoint answered 410: it wants nothing more."""


class Forwarder:
    """Delivers a feed. `read` returns the items after a cursor; it may raise HistoryChanged."""

    def __init__(
        self,
        state: ForwardState,
        read: Callable[[FeedCursor], Awaitable[Read]],
        client: httpx2.AsyncClient,
        url: str,
        secrets: Sequence[bytes],
        *,
        first_backoff_s: float = 1.0,
    ) -> None:
        self._state = state
        self._read = read
        self._client = client
        self._url = url
        self._secrets = secrets
        self._delivered: list[int] = []
        self._lanes = Lanes(self._deliver, lambda message: self._delivered.append(message.id), first_backoff_s)

    async def run(self, cursor: FeedCursor, stopping: asyncio.Event) -> None:
        """Deliver everything after a cursor, and what is pending, until stopped.

        Raises EndpointGone, HistoryChanged, StateUnavailable.
        """
        for message in self._state.pending():
            self._lanes.add(message)
        following = asyncio.create_task(self._lanes.run(lambda: self._follow(cursor)))
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({following, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            following.cancel()
            await asyncio.wait({following})
            self._flush()
        if not following.cancelled() and (error := following.exception()):
            raise _first_of(error)

    async def _follow(self, cursor: FeedCursor) -> None:
        flushed_at = 0.0
        while True:
            if self._delivered and time.monotonic() - flushed_at > _FLUSH_S:
                self._flush()
                flushed_at = time.monotonic()
            if len(self._lanes) >= MAX_LANES or self._lanes.messages >= MAX_MESSAGES:
                await asyncio.sleep(_POLL_S)
                continue
            try:
                read = await self._read(cursor)
            except (StoreUnavailable, ReadModelUnavailable):
                await asyncio.sleep(_RETRY_S)
                continue
            if read.cursor == cursor:
                await asyncio.sleep(_POLL_S)
                continue
            cursor = read.cursor
            for message in self._state.accept(str(cursor), list(map(_message, read.items))):
                self._lanes.add(message)

    async def _deliver(self, message: Pending) -> Refused | None:
        body = message.body.encode()
        headers = signed_headers(self._secrets, message.webhook_id, int(time.time()), body)
        headers["content-type"] = "application/json"
        try:
            response = await self._client.post(self._url, content=body, headers=headers, timeout=_TIMEOUT_S)
        except httpx2.HTTPError as error:
            return Refused(" ".join(str(error).split()) or type(error).__name__)
        if response.is_success:
            return None
        if response.status_code == _GONE:
            raise EndpointGone(f"{self._url} answered 410 Gone: it wants nothing more")
        retry_after = response.headers.get("Retry-After", "")
        return Refused(f"status {response.status_code}", float(retry_after) if retry_after.isdigit() else 0)

    def _flush(self) -> None:
        """Forget what is delivered; if this fails, it is delivered again, with the same id."""
        delivered, self._delivered = self._delivered, []
        if delivered:
            self._state.delivered(delivered)


def _message(item: Item) -> tuple[str, str, str]:
    return item.group_id or _EVERYBODY, str(item.cursor), item.data.decode()


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
