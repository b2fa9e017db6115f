"""Lanes: messages of different groups are delivered side by side, those of one group one after the other."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog

from projector.forwarding.state import Pending

CONCURRENT: Final = 16
_FIRST_BACKOFF_S: Final = 1.0
_MAX_BACKOFF_S: Final = 300.0

log = structlog.get_logger(__name__)


class Refused(NamedTuple):
    """Why a message was not delivered, and how many seconds the endpoint wants to be left alone, 0 if unknown."""

    reason: str
    retry_after_s: float = 0


Deliver = Callable[[Pending], Awaitable[Refused | None]]
"""Delivers a message; returns why it was refused, None if it was accepted."""


class Lanes:
    """The messages that wait for their delivery. `deliver` is called for at most CONCURRENT lanes at a time.

    If the delivery of a lane's first message fails, the lane waits, ever longer, and tries again; the others go on.
    """

    def __init__(
        self, deliver: Deliver, on_delivered: Callable[[Pending], None], first_backoff_s: float = _FIRST_BACKOFF_S
    ) -> None:
        self._deliver = deliver
        self._on_delivered = on_delivered
        self._first_backoff_s = first_backoff_s
        self._lanes: dict[str, deque[Pending]] = {}
        self._free = asyncio.Semaphore(CONCURRENT)
        self._tasks: asyncio.TaskGroup | None = None
        self.messages = 0

    def __len__(self) -> int:
        return len(self._lanes)

    async def run(self, reading: Callable[[], Awaitable[None]]) -> None:
        """Deliver what is added while `reading` runs. Raises an ExceptionGroup with what that or `deliver` raises."""
        async with asyncio.TaskGroup() as self._tasks:
            for name in self._lanes:
                self._tasks.create_task(self._run_lane(name))
            await reading()

    def add(self, message: Pending) -> None:
        """Add a message at the end of its lane."""
        self.messages += 1
        if (lane := self._lanes.get(message.lane)) is not None:
            lane.append(message)
            return
        self._lanes[message.lane] = deque([message])
        if self._tasks is not None:
            self._tasks.create_task(self._run_lane(message.lane))

    async def _run_lane(self, name: str) -> None:
        lane, failures, failing_since = self._lanes[name], 0, 0.0
        while lane:
            async with self._free:
                refused = await self._deliver(lane[0])
            if refused is None:
                if failures:
                    log.info("delivering again", group=name, after_s=round(time.monotonic() - failing_since))
                failures = 0
                self.messages -= 1
                self._on_delivered(lane.popleft())
                continue
            if not failures:
                failing_since = time.monotonic()
                log.warning("a group waits; trying again", group=name, reason=refused.reason, id=lane[0].webhook_id)
            backoff = min(self._first_backoff_s * 2**failures, _MAX_BACKOFF_S)
            failures = min(failures + 1, 20)
            await asyncio.sleep(max(backoff, min(refused.retry_after_s, _MAX_BACKOFF_S)))
        del self._lanes[name]
