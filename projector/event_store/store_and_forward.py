"""Store and forward: what the store does not take in time goes into the spool, and from there into the store later.

The vendor waits two seconds for a receiver, and delivers nothing again. So a callback is acknowledged when it is
durable in the store or, while the store is unavailable, in the spool.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final
from uuid import uuid4

import structlog

from projector.event_store import Appended, Candidate, EventStore, StoreUnavailable
from projector.event_store.quarantine import Quarantine, QuarantineFull, UnreadableRequest
from projector.event_store.spool import Spool, SpoolStatus
from projector.logs import Condition

STORE_TIMEOUT_S: Final = 1.0
"""How long the store may take for a batch; the rest of the vendor's two seconds is for the spool and the network."""

_BATCH_SIZE: Final = 500
_POLL_S: Final = 0.5
_TIMED_OUT: Final = "it did not answer in time"

log = structlog.get_logger(__name__)


class StoreAndForward:
    """Appends to the store or, if it does not answer in time, to the spool, which a thread empties.

    `on_forward` is called when something has gone from the spool into the store.
    """

    def __init__(
        self,
        store: EventStore,
        quarantine: Quarantine,
        spool: Spool,
        on_forward: Callable[[], None],
        *,
        timeout_s: float = STORE_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._quarantine = quarantine
        self._spool = spool
        self._on_forward = on_forward
        self._timeout_s = timeout_s
        self._append_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._pending_append: Future[list[Appended]] | None = None
        self._keep_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quarantine")
        self._pending_keep: Future[int] | None = None
        self._keep_lock = threading.Lock()
        self._refused: set[int] = set()
        self._away = Condition(log, begins="database unavailable; spooling callbacks", ends="database available again")
        self._cut = Condition(
            log,
            begins="cannot forward callbacks from the spool; trying again",
            ends="forwarding from the spool again",
            level="error",
        )
        self._stopping = threading.Event()
        self._spooled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forward")

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        """Make a batch durable; return where its events are.

        An event without an identity gets one, so that it is appended once even if the store took it after all.

        Raises StoreUnavailable if neither the store nor the spool takes it.
        """
        batch = [Candidate(event, identity or uuid4().bytes) for event, identity in batch]
        if self._pending_append is None or self._pending_append.done():
            self._pending_append = self._append_thread.submit(self._store.append, batch)
            try:
                appended = self._pending_append.result(timeout=self._timeout_s)
            except StoreUnavailable as error:
                self._away.met(str(error))
            except TimeoutError:
                self._away.met(_TIMED_OUT)
            else:
                self._away.over()
                return appended
        self._spool.keep(batch)
        self._spooled.set()
        return [Appended(None, repeated=False)] * len(batch)

    def keep(self, request: UnreadableRequest) -> int | None:
        """Make an unreadable request durable; return its id in the quarantine, None if it waits in the spool.

        Raises QuarantineFull, and StoreUnavailable if neither the quarantine nor the spool takes it.
        """
        with self._keep_lock:
            if self._pending_keep is None or self._pending_keep.done():
                self._pending_keep = self._keep_thread.submit(self._quarantine.keep, request)
                try:
                    return self._pending_keep.result(timeout=self._timeout_s)
                except QuarantineFull:
                    raise
                except (StoreUnavailable, TimeoutError) as error:
                    self._away.met(str(error) or _TIMED_OUT)
            self._spool.keep_unreadable(request)
        self._spooled.set()
        return None

    def status(self) -> SpoolStatus:
        """Return the status of the spool. Raises StoreUnavailable."""
        return self._spool.status()

    def start(self) -> None:
        """Start the thread that empties the spool."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it; what is still in the spool is forwarded after the next start."""
        self._stopping.set()
        self._spooled.set()
        self._thread.join()
        for threads in (self._append_thread, self._keep_thread):
            threads.shutdown(wait=False, cancel_futures=True)
        self._spool.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._spooled.clear()
            try:
                self._forward()
            except StoreUnavailable:
                self._stopping.wait(_POLL_S)
            except Exception as error:  # noqa: BLE001 - the thread must outlive every error, or the spool fills up
                self._cut.met(f"{type(error).__name__}: {error}")
                self._stopping.wait(_POLL_S)
            else:
                self._cut.over()
                self._spooled.wait(_POLL_S)

    def _forward(self) -> None:
        """Move entries from the spool into the store, oldest first. Those that the store refuses stay in the spool.

        Raises StoreUnavailable if the store takes nothing at all.
        """
        last_id = 0
        while not self._stopping.is_set() and (entries := self._spool.oldest(last_id, _BATCH_SIZE)):
            last_id = entries[-1][0]
            taken = self._taken(entries)
            self._spool.remove(taken)
            if taken:
                self._away.over()
                self._on_forward()
                log.info("forwarded callbacks from the spool", count=len(taken))

    def _taken(self, entries: Sequence[tuple[int, Candidate | UnreadableRequest]]) -> list[int]:
        """Give entries to the store and its quarantine; return the ids of those that they take."""
        events = {entry_id: entry for entry_id, entry in entries if isinstance(entry, Candidate)}
        requests = [(entry_id, entry) for entry_id, entry in entries if isinstance(entry, UnreadableRequest)]
        taken = [entry_id for entry_id, request in requests if self._quarantines(entry_id, request)]
        try:
            self._store.append([*events.values()])
        except Exception:  # noqa: BLE001 - one by one, each event shows whether it is at fault
            return taken + [entry_id for entry_id, candidate in events.items() if self._appends(entry_id, candidate)]
        return [*taken, *events]

    def _quarantines(self, entry_id: int, request: UnreadableRequest) -> bool:
        try:
            self._quarantine.keep(request)
        except QuarantineFull as error:
            self._note_refusal(entry_id, error)
            return False
        self._refused.discard(entry_id)
        return True

    def _appends(self, entry_id: int, candidate: Candidate) -> bool:
        try:
            self._store.append([candidate])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one event must not hold up the others
            self._store.head()  # raises if the store is away, so that only this event is at fault
            self._note_refusal(entry_id, error)
            return False
        self._refused.discard(entry_id)
        return True

    def _note_refusal(self, entry_id: int, error: Exception) -> None:
        if entry_id not in self._refused:
            self._refused.add(entry_id)
            log.warning("the database refuses an entry, which stays in the spool", reason=str(error))
