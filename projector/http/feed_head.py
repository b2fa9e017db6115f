"""How far the feeds go, for all readers of a process: those that wait share one watcher."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from projector.event_store import StoreUnavailable
from projector.feeds.log import FeedState
from projector.http.problems import Problem
from projector.http.reached_position import ReachedPosition
from projector.read_model import ReadModelUnavailable

MAX_WAITING: Final = 1_000
_NOTICES_S: Final = 1.0
"""How often notices are looked for; nothing wakes those who wait for them."""


class FeedHead:
    """The newest state of the feeds, as `read` returns it. It is read while anybody waits.

    At most `max_waiting` requests wait, beside streams. All methods are for the event loop.
    """

    def __init__(
        self, read: Callable[[], Awaitable[FeedState]], reached: ReachedPosition, max_waiting: int = MAX_WAITING
    ) -> None:
        self._read = read
        self._reached = reached
        self._max_waiting = max_waiting
        self._requests = 0
        self._state = FeedState(0, 0, 0, 0, 0)
        self._changed: asyncio.Event = asyncio.Event()
        self._waiting = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def newest_notice(self) -> int:
        """The newest notice that is known in this process."""
        return self._state.notice

    async def refresh(self) -> FeedState:
        """Return the state as it is now. Raises StoreUnavailable and ReadModelUnavailable."""
        state = await self._read()
        if state[:3] != self._state[:3]:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        self._state = state
        return state

    async def beyond(self, state: FeedState, timeout_s: float) -> FeedState:
        """Return another state than this one as soon as there is one; after so many seconds, the newest in any case."""
        if self._state[:3] == state[:3]:
            self._waiting += 1
            changed = self._changed
            if self._watching is None:
                self._watching = asyncio.create_task(self._watch())
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await changed.wait()
            finally:
                self._waiting -= 1
        return self._state

    async def beyond_for_request(self, state: FeedState, timeout_s: float) -> FeedState:
        """Do as `beyond`. Raises Problem if too many requests wait."""
        if self._requests >= self._max_waiting:
            raise Problem(503, "Too many requests are waiting.", {"Retry-After": "5"})
        self._requests += 1
        try:
            return await self.beyond(state, timeout_s)
        finally:
            self._requests -= 1

    async def _watch(self) -> None:
        try:
            while self._waiting:
                try:
                    await self._reached.wait(self._state.reached + 1, _NOTICES_S)
                    await self.refresh()
                except (StoreUnavailable, ReadModelUnavailable):
                    await asyncio.sleep(_NOTICES_S)
        finally:
            self._watching = None
