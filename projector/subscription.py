"""The subscription carries events from the store to the projections, in order: read a batch, more?, wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

from projector.event_store import StoreUnavailable
from projector.projection import project, retry
from projector.read_model import ReadModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from projector.event_store import EventStore
    from projector.projection import Projection
    from projector.read_model import ReadModel, Work

BATCH_SIZE: Final = 1_000
_POLL_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 5.0
_PARTING_S: Final = 2.0

log = structlog.get_logger(__name__)


class Subscription:
    """Keeps a read model up with an event store. Everything but `wake` and `stop` is for one thread."""

    def __init__(
        self,
        store: EventStore,
        read_model: ReadModel,
        projections: Sequence[Projection],
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._projections = projections
        self._batch_size = batch_size
        self._news = threading.Event()
        self._stopping = threading.Event()
        self.failure: str | None = None
        """Why the last batch could not be read or applied; None while all is well."""
        for name in read_model.prepare({one.name: one.version for one in projections}, store.head):
            reason = "its rows were of another version, or ahead of the events"
            log.info("a projection starts over", projection=name, reason=reason)
        self.position = 0
        """The position that every projection has reached."""
        with read_model.transaction() as work:
            self.position = self._lowest_checkpoint(work)

    def catch_up(self, *, through: int | None = None, advanced: Callable[[int], None] = lambda _: None) -> int:
        """Project until the head, or `through`, is reached; return the position.

        `advanced` is told after each batch how many events it had.

        Raises StoreUnavailable and ReadModelUnavailable; what was committed before stays.
        """
        while not self._stopping.is_set() and (count := self._step(through)):
            advanced(count)
        return self.position

    def retry_set_aside(self) -> int:
        """Apply again what was set aside, since a fix may have come; return how many are left."""
        by_name = {projection.name: projection for projection in self._projections}
        left = 0
        for note in self._read_model.notes():
            found = self._store.read(note.position - 1, 1)
            with self._read_model.transaction() as work:
                if note.projection in by_name and found and retry(work, by_name[note.projection], found[0]):
                    log.info("an event set aside was applied", projection=note.projection, position=note.position)
                else:
                    left += 1
        return left

    def run(self) -> None:
        """Project until stopped, through every failure of the store or the read model."""
        backoff = _POLL_S
        retried = False
        while not self._stopping.is_set():
            self._news.clear()
            try:
                if not retried:
                    self.retry_set_aside()
                    retried = True
                self.catch_up()
            except Exception as error:
                known = isinstance(error, StoreUnavailable | ReadModelUnavailable)
                self.failure = str(error) if known else repr(error)
                log.warning("projections are halted", reason=self.failure, exc_info=not known)
                self._stopping.wait(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_S)
                continue
            self.failure, backoff = None, _POLL_S
            self._news.wait(_POLL_S)
        self._part()

    def wake(self) -> None:
        """Tell that there are new events. Other processes need not: the store is looked at now and then."""
        self._news.set()

    def stop(self) -> None:
        """Make `run` return after what is already stored is projected, as far as that goes in two seconds."""
        self._stopping.set()
        self._news.set()

    def _step(self, through: int | None) -> int:
        limit = self._batch_size if through is None else min(self._batch_size, through - self.position)
        batch = self._store.read(self.position, limit) if limit > 0 else []
        if batch:
            now_ms = time.time_ns() // 1_000_000
            with self._read_model.transaction() as work:
                if (reached := self._lowest_checkpoint(work)) < self.position:
                    self.position = reached  # another process has begun a projection again
                    return len(batch)
                for projection in self._projections:
                    project(work, projection, batch, now_ms=now_ms)
            self.position = batch[-1].position
        return len(batch)

    def _part(self) -> None:
        deadline = time.monotonic() + _PARTING_S
        try:
            while time.monotonic() < deadline and self._step(None):
                pass
        except (StoreUnavailable, ReadModelUnavailable) as error:
            log.warning("stopped before every event was projected; the next start goes on", reason=str(error))

    def _lowest_checkpoint(self, work: Work) -> int:
        ours = [one.name for one in self._projections if work.version(one.name) == one.version]
        return min((work.position(name) for name in ours), default=self.position)
