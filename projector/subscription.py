"""The subscription: carries events from the store to the projections, in order, a batch at a time."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import structlog

from projector.clock import now_ms
from projector.event_store import EventStore, StoreUnavailable
from projector.event_store.renamed_events import RenamedEvents
from projector.logs import Condition
from projector.projection import Projection, of_same_version, project
from projector.projection.origin import require_built_from
from projector.projection.refold import retry_set_aside
from projector.read_model import NoReadModel, ReadModel, ReadModelUnavailable
from projector.read_model.schema import SCHEMA_VERSION
from projector.read_model.unit_of_work import ReadTransaction

BATCH_SIZE: Final = 1_000
LINGER_S: Final = 0.015
"""Events that arrive within this time are projected together: a transaction costs as much as about ten events."""

_POLL_S: Final = 1.0
"""How often the store is read even if nothing wakes the subscription."""

_STANDBY_S: Final = 1.0
"""How often a standby tries to lead, and the leader checks that the rows are still of its version."""

_RETRY_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0
_DRAIN_S: Final = 2.0

log = structlog.get_logger(__name__)


class Subscription:
    """Keeps a read model up to date with an event store. Only `wake` and `stop` may be called from other threads.

    `on_project` is called after each batch.
    """

    def __init__(
        self,
        store: EventStore,
        read_model: ReadModel,
        projections: Sequence[Projection],
        *,
        batch_size: int = BATCH_SIZE,
        linger_s: float = LINGER_S,
        on_project: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._projections = projections
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._on_project = on_project
        self._new_events = threading.Event()
        self._stopping = threading.Event()
        self._has_retried = False
        self._set_aside: dict[int, str] = {}
        self._is_checked = False
        self._versions_checked_at = 0.0
        self._halted = Condition(log, begins="projections are halted", ends="projections are running again")
        self._has_led: bool | None = None
        self.failure: str | None = None
        """Why the last batch could not be read or applied; None after success."""

    @cached_property
    def position(self) -> int:
        """The position that every projection has reached; read only once, then counted."""
        with self._read_model.read_transaction() as now:
            return self._reached(now) or 0

    def catch_up(self, *, through: int | None = None, on_progress: Callable[[int], None] = lambda _: None) -> int:
        """Project up to the head, or up to position `through`; return the position reached.

        `on_progress` is called after each batch with its number of events.

        Raises StoreUnavailable and ReadModelUnavailable; batches committed before stay.
        """
        while not self._stopping.is_set() and (count := self._project_batch(through)):
            on_progress(count)
        return self.position

    def run(self) -> None:
        """Project until stopped, while no other process does. Failures of the store or the read model are retried."""
        backoff = _RETRY_S
        while not self._stopping.is_set():
            self._new_events.clear()
            try:
                leads = self._lead()
            except NoReadModel as error:
                self.failure = str(error)
                self._stopping.wait(_RETRY_S)
            except Exception as error:  # noqa: BLE001 - projecting must go on after any failure
                self._report(error)
                self._stopping.wait(backoff)
                backoff = min(backoff * 2, _MAX_BACKOFF_S)
            else:
                self.failure = None
                self._halted.over()
                self._note_lead(leads)
                if leads:
                    backoff = _RETRY_S
                    self._stopping.wait(self._linger_s)
                    self._new_events.wait(_POLL_S)
                else:
                    self._stopping.wait(_STANDBY_S)
        self._drain()

    def wake(self) -> None:
        """Project new events without waiting for the next poll."""
        self._new_events.set()

    def stop(self) -> None:
        """End `run`, after at most two seconds in which stored events are still projected."""
        self._stopping.set()
        self._new_events.set()

    def _lead(self) -> bool:
        """Catch up if this process has the right to project; tell whether it has."""
        if not self._read_model.try_lead():
            return False
        self._require_own_events()
        if not self._has_retried:
            self._announce()
            retry_set_aside(self._store, self._read_model, self._projections)
            self._announce()
            self._has_retried = True
        self.catch_up()
        if time.monotonic() > self._versions_checked_at + _STANDBY_S:
            self._versions_checked_at = time.monotonic()
            self._announce()
            self._step_down_if_outdated()
        return True

    def _announce(self) -> None:
        """Append notices of changes to the read model that no event has caused."""
        with self._read_model.read_transaction() as now:
            versions = {name: checkpoint.version for name, checkpoint in now.checkpoints().items()}
            positions = {event.position for event in now.set_aside_events()}
        known = {position: self._set_aside.get(position) or self._group_of(position) for position in positions}
        self._set_aside = known
        self._store.notices.announce_read_model(SCHEMA_VERSION, versions, known)

    def _group_of(self, position: int) -> str:
        (recorded,) = self._store.read(position - 1, 1)
        return recorded.event.group_id

    def _require_own_events(self) -> None:
        """Raise NoReadModel if the read model was built from other events: new ones would hide that."""
        if not self._is_checked:
            with self._read_model.read_transaction() as now:
                require_built_from(self._store, now.mark())
            self._is_checked = True

    def _step_down_if_outdated(self) -> None:
        """Let a process of another version lead if that version has written some of the rows."""
        with self._read_model.read_transaction() as now:
            is_current = len(of_same_version(self._projections, now.checkpoints())) == len(self._projections)
        if not is_current:
            self._read_model.step_down()

    def _report(self, error: Exception) -> None:
        is_expected = isinstance(error, StoreUnavailable | ReadModelUnavailable)
        self.failure = str(error) if is_expected else repr(error)
        self._halted.met(self.failure, error=None if is_expected else error)

    def _note_lead(self, leads: bool) -> None:
        if leads is not self._has_led:
            log.info("took the lead; projecting" if leads else "standing by; another worker projects")
            self._has_led = leads

    def _project_batch(self, through: int | None = None) -> int:
        """Project the next events, at most up to position `through`; return how many there were."""
        limit = self._batch_size if through is None else min(self._batch_size, through - self.position)
        batch = self._store.read(self.position, limit) if limit > 0 else []
        if batch:
            with self._read_model.transaction() as work:
                if (reached := self._reached(work)) is None:
                    return 0
                if reached != self.position:
                    self.position = reached  # another read model was made live
                    return len(batch)
                events = RenamedEvents(self._store, work.forgotten_through).rename_already_read(batch)
                project(work, self._projections, events, now_ms=now_ms())
            self.position = batch[-1].position
            self._on_project()
        return len(batch)

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_S
        try:
            if self._read_model.try_lead():
                self._require_own_events()
                while time.monotonic() < deadline and self._project_batch():
                    pass
        except (StoreUnavailable, ReadModelUnavailable) as error:
            log.warning("stopped before all events were projected; the next start continues", reason=str(error))

    def _reached(self, read_model: ReadTransaction) -> int | None:
        """Return the position that all rows of this version have reached, None if there are no such rows."""
        checkpoints = read_model.checkpoints()
        ours = of_same_version(self._projections, checkpoints)
        return min((checkpoints[projection.name].position for projection in ours), default=None)
