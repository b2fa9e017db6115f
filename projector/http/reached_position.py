"""Waiting until the read model has reached a position: all clients that wait share each look at it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from projector.event_store import StoreUnavailable
from projector.read_model import NoReadModel, ReadModelUnavailable

POLL_S: Final = 0.025


class ReachedPosition:
    """The position of the read model, as `read` returns it. While clients wait, it is read on `wake`, and regularly.

    `read` may raise StoreUnavailable and ReadModelUnavailable. All methods are for the event loop.
    """

    def __init__(self, read: Callable[[], Awaitable[int]], poll_s: float = POLL_S) -> None:
        self._read = read
        self._poll_s = poll_s
        self._waiting: dict[asyncio.Future[int], int] = {}
        self._woken = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Say that the read model has changed."""
        self._woken.set()

    async def wait(self, position: int, timeout_s: float) -> int:
        """Return the position reached: at least this one, or less after so many seconds.

        A read model that does not exist yet counts as one at position 0, except when the time is over.

        Raises StoreUnavailable and ReadModelUnavailable.
        """
        if (reached := await self._read_or_zero()) >= position:
            return reached
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[future] = position
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return await self._read()
        finally:
            self._waiting.pop(future, None)

    async def _watch(self) -> None:
        try:
            while self._waiting:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._poll_s)
                self._woken.clear()
                self._resolve(await self._read_or_zero())
        except (StoreUnavailable, ReadModelUnavailable) as error:
            for future in self._waiting:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._watching = None

    def _resolve(self, reached: int) -> None:
        for future, position in self._waiting.items():
            if position <= reached and not future.done():
                future.set_result(reached)

    async def _read_or_zero(self) -> int:
        try:
            return await self._read()
        except NoReadModel:
            return 0
