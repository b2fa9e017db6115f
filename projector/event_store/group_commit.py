"""Group commit: callbacks that arrive while one commit is under way go into the next, as one transaction."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from projector.event_store import Appended, Candidate

GATHER_S: Final = 0.005
"""How long a transaction may wait for callbacks that are still arriving."""

_TURNS: Final = 2
"""One turn of the event loop reads requests from their sockets, and the next runs the tasks that answer them."""


class Overloaded(Exception):
    """More callbacks wait for a commit than the queue may hold."""


class GroupCommit:
    """Appends events from many tasks, one transaction at a time. Each task waits until its event is durable.

    A transaction begins when the event loop brings no more events, and after `gather_s` (s) at the latest. `append` is
    called in a thread of its own, and `on_commit` there after each transaction. At most `capacity` events wait, and at
    most `batch_size` go into one transaction.
    """

    def __init__(
        self,
        append: Callable[[Sequence[Candidate]], list[Appended]],
        *,
        on_commit: Callable[[], None],
        capacity: int = 10_000,
        batch_size: int = 1_000,
        gather_s: float = GATHER_S,
    ) -> None:
        self._append = append
        self._on_commit = on_commit
        self._capacity = capacity
        self._batch_size = batch_size
        self._gather_s = gather_s
        self._waiting: list[tuple[Candidate, asyncio.Future[Appended]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="append")

    @property
    def depth(self) -> int:
        """How many candidates wait for the next transaction."""
        return len(self._waiting)

    async def append(self, candidate: Candidate) -> Appended:
        """Return where the event is, once it is durable. Raises Overloaded and StoreUnavailable."""
        if len(self._waiting) >= self._capacity:
            raise Overloaded
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        self._waiting.append((candidate, future))
        if self._writing is None:
            self._writing = loop.create_task(self._write())
        return await future

    async def close(self) -> None:
        """Wait until everything that was accepted is answered."""
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._gather()
            batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
            try:
                appended = await loop.run_in_executor(self._thread, self._commit, [candidate for candidate, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
                _fail([future for _, future in batch], error)
            else:
                for (_, future), result in zip(batch, appended, strict=True):
                    if not future.done():
                        future.set_result(result)
        self._writing = None

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        deadline, count = loop.time() + self._gather_s, 0
        while count < len(self._waiting) < self._batch_size and loop.time() < deadline:
            count = len(self._waiting)
            for _ in range(_TURNS):
                await asyncio.sleep(0)

    def _commit(self, batch: list[Candidate]) -> list[Appended]:
        appended = self._append(batch)
        self._on_commit()
        return appended


def _fail(futures: list[asyncio.Future[Appended]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
