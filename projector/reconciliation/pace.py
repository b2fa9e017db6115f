"""The pace of requests: a rate that is halved when the vendor throttles, and recovers slowly."""

import asyncio
import random
import time
from typing import Final

_MIN_RATE: Final = 0.5
_RECOVERY: Final = 0.01
"""The part of the full rate that each answer gives back."""

_MIN_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 30.0


class Pace:
    """Spaces requests evenly, at most `rate` a second: additive increase, multiplicative decrease."""

    def __init__(self, rate: float) -> None:
        self._full_rate = self._rate = rate
        self._next_at = 0.0
        self._pause_s = _MIN_PAUSE_S

    async def turn(self) -> None:
        """Wait for the next request's turn."""
        now = time.monotonic()
        self._next_at = max(self._next_at, now) + 1 / self._rate
        if (wait := self._next_at - 1 / self._rate - now) > 0:
            await asyncio.sleep(wait)

    def slow_down(self) -> None:
        """Halve the rate, and pause all requests, twice as long each time: a second at first, 30 at most."""
        self._rate = max(self._rate / 2, _MIN_RATE)
        self._next_at = max(self._next_at, time.monotonic() + self._pause_s * random.uniform(1, 1.5))  # noqa: S311 - jitter
        self._pause_s = min(self._pause_s * 2, _MAX_PAUSE_S)

    def recover(self) -> None:
        """Note an answer that was not throttled."""
        self._rate = min(self._rate + self._full_rate * _RECOVERY, self._full_rate)
        self._pause_s = _MIN_PAUSE_S
