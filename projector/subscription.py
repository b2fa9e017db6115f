"""The subscription carries events from the store to the projections, in order: read a batch, more?, wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

from projector.clock import now_ms
from projector.event_store import StoreUnavailable, stream
from projector.projection import mark_of, project, refold
from projector.read_model import NoReadModel, ReadModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from projector.event_store import EventStore
    from projector.projection import Projection
    from projector.read_model import ReadModel
    from projector.read_model.unit_of_work import ReadTransaction

BATCH_SIZE: Final = 1_000
_POLL_S: Final = 1.0
"""The store tells of what others append; it is looked at as well, for safety."""

_RETRY_S: Final = 0.1
LINGER_S: Final = 0.015
"""What comes within so short a time is projected together: a transaction costs as much as some ten events."""

_TAKE_OVER_S: Final = 1.0
_MAX_BACKOFF_S: Final = 5.0
_DRAIN_S: Final = 2.0
_UNSEEN: Final = -1

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
        linger_s: float = LINGER_S,
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._projections = projections
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._news = threading.Event()
        self._stopping = threading.Event()
        self.failure: str | None = None
        """Why the last batch could not be read or applied; None while all is well."""
        self.position = _UNSEEN
        """The position that every projection has reached."""

    def catch_up(self, *, through: int | None = None, on_progress: Callable[[int], None] = lambda _: None) -> int:
        """Project until the head, or `through`, is reached; return the position.

        `on_progress` is told after each batch how many events it had.

        Raises StoreUnavailable and ReadModelUnavailable; what was committed before stays.
        """
        self._look()
        while not self._stopping.is_set() and (count := self._step(through)):
            on_progress(count)
        return self.position

    def retry_set_aside(self) -> int:
        """Fold again the groups of which events were set aside, since a fix may have come; return how many are left."""
        with self._read_model.read_transaction() as now:
            noted = {(note.projection, note.position) for note in now.set_aside_events()}
        for group_id, names in self._groups(noted).items():
            with self._read_model.transaction() as work:
                for projection in self._ours(work):
                    if projection.name in names:
                        through = work.checkpoints()[projection.name].position
                        refold(work, projection, group_id, stream(self._store, group_id, through), now_ms=now_ms())
        with self._read_model.read_transaction() as now:
            left = {(note.projection, note.position) for note in now.set_aside_events()}
        for projection_name, position in sorted(noted - left):
            log.info("an event set aside was applied", projection=projection_name, position=position)
        return len(left)

    def run(self) -> None:
        """Project until stopped, through every failure of the store or the read model, while no other process does."""
        backoff = _RETRY_S
        retried, versions_seen_at = False, 0.0
        while not self._stopping.is_set():
            self._news.clear()
            try:
                if not self._read_model.try_lead():
                    self.failure = None
                    self._stopping.wait(_TAKE_OVER_S)
                    continue
                if not retried:
                    self.retry_set_aside()
                    retried = True
                self.catch_up()
                if time.monotonic() > versions_seen_at + _TAKE_OVER_S:
                    versions_seen_at = time.monotonic()
                    if not self._is_of_our_version():
                        self._read_model.step_down()
            except NoReadModel as error:
                self.failure = str(error)
                self._stopping.wait(_RETRY_S)
                continue
            except Exception as error:
                known = isinstance(error, StoreUnavailable | ReadModelUnavailable)
                self.failure = str(error) if known else repr(error)
                log.warning("projections are halted", reason=self.failure, exc_info=not known)
                self._stopping.wait(backoff)
                backoff = min(backoff * 2, _MAX_BACKOFF_S)
                continue
            self.failure, backoff = None, _RETRY_S
            self._stopping.wait(self._linger_s)
            self._news.wait(_POLL_S)
        self._part()

    def wake(self) -> None:
        """Tell that there are new events."""
        self._news.set()

    def stop(self) -> None:
        """Make `run` return after what is already stored is projected, as far as that goes in two seconds."""
        self._stopping.set()
        self._news.set()

    def _look(self) -> None:
        if self.position == _UNSEEN:
            with self._read_model.read_transaction() as now:
                self.position = self._reached(now) or 0

    def _step(self, through: int | None) -> int:
        limit = self._batch_size if through is None else min(self._batch_size, through - self.position)
        batch = self._store.read(self.position, limit) if limit > 0 else []
        if batch:
            with self._read_model.transaction() as work:
                if (reached := self._reached(work)) is None:
                    return 0
                if reached != self.position:
                    self.position = reached  # it is another read model than the last time
                    return len(batch)
                project(work, self._projections, batch, now_ms=now_ms())
                work.save_mark(mark_of(batch[-1]))
            self.position = batch[-1].position
        return len(batch)

    def _part(self) -> None:
        deadline = time.monotonic() + _DRAIN_S
        try:
            if not self._read_model.try_lead():
                return
            self._look()
            while time.monotonic() < deadline and self._step(None):
                pass
        except (StoreUnavailable, ReadModelUnavailable) as error:
            log.warning("stopped before every event was projected; the next start goes on", reason=str(error))

    def _is_of_our_version(self) -> bool:
        """Tell whether all rows are of our versions; if not, another process may be the one to project them."""
        with self._read_model.read_transaction() as now:
            return len(self._ours(now)) == len(self._projections)

    def _ours(self, read_model: ReadTransaction) -> list[Projection]:
        known = read_model.checkpoints()
        return [one for one in self._projections if one.name in known and known[one.name].version == one.version]

    def _reached(self, read_model: ReadTransaction) -> int | None:
        """Return the position that all rows of our versions have reached, None if there are no such rows."""
        known = read_model.checkpoints()
        return min((known[one.name].position for one in self._ours(read_model)), default=None)

    def _groups(self, noted: Iterable[tuple[str, int]]) -> dict[str, set[str]]:
        groups: dict[str, set[str]] = {}
        for projection_name, position in noted:
            for recorded in self._store.read(position - 1, 1):
                groups.setdefault(recorded.event.group_id, set()).add(projection_name)
        return groups
