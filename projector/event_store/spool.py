"""Store and forward: what the store does not take in time waits in a file beside the receiver, and goes in later.

The vendor gives a receiver two seconds and delivers nothing again. So a callback is acknowledged when it is durable in
the store or, if the store is away, in the spool; the spool is emptied, oldest first, when the store is back. So is what
could not be read, for the quarantine.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import msgspec
import structlog
from eventsourcing.persistence import MapperDeserialisationError

from projector.clock import now_ms
from projector.database.sqlite import switch_to_wal
from projector.event_store import Appended, Candidate, QuarantineFull, StoreUnavailable, bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from projector.event_store.mapper import EventMapper

STORE_TIMEOUT_S: Final = 1.0
"""How long the store may take for a batch; as much again is left for the spool, and for the way to the vendor."""

_BATCH_SIZE: Final = 500
_UNREAD: Final = "unread"
_POLL_S: Final = 0.5
_PRAGMAS: Final = ("PRAGMA synchronous=FULL", "PRAGMA fullfsync=ON", "PRAGMA secure_delete=ON")
_TABLE: Final = """CREATE TABLE IF NOT EXISTS spool (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, state BLOB NOT NULL, identity BLOB NOT NULL,
    spooled_at INTEGER NOT NULL)"""

_SPOOLED: Final = "SELECT COUNT(*), COALESCE(MIN(spooled_at), 0) FROM spool"

log = structlog.get_logger(__name__)


class SpooledRequest(NamedTuple):
    """An authentic request that could not be read, as the quarantine is told of it."""

    body: bytes
    reason: str
    command: str | None
    platform: str | None
    received_at: int


class SpoolStatus(NamedTuple):
    """How many events wait in a spool, and since when the oldest does, in ms since 1970 UTC; 0 if there is none."""

    depth: int
    oldest_at: int

    def age_s(self) -> float:
        """Return for how many seconds the oldest has waited."""
        return max(0.0, time.time() - self.oldest_at / 1000) if self.depth else 0.0


class Spool:
    """Events, and what could not be read, in an SQLite file, synced at every commit, at most `capacity` of both.

    For any thread.
    """

    def __init__(self, path: str, mapper: EventMapper, capacity: int) -> None:
        self._mapper = mapper
        self._capacity = capacity
        self._lock = threading.Lock()
        with _unavailable():
            switch_to_wal(path)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
            for statement in (*_PRAGMAS, _TABLE):
                self._connection.execute(statement)

    def keep(self, batch: Sequence[Candidate]) -> None:
        """Make a batch durable. Raises StoreUnavailable if there is no room, or the file cannot be written."""
        stored = [(self._mapper.to_stored_event(event), identity) for event, identity in batch]
        self._insert([(event.topic, event.state, identity) for event, identity in stored])

    def keep_unread(self, unread: SpooledRequest) -> None:
        """Make what could not be read durable. Raises StoreUnavailable as `keep` does."""
        self._insert([(_UNREAD, self._mapper.seal(msgspec.json.encode(unread)), b"")])

    def _insert(self, told: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        now = now_ms()
        rows = [(*row, now) for row in told]
        with _unavailable(), self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            (depth,) = self._connection.execute("SELECT COUNT(*) FROM spool").fetchone()
            if depth + len(rows) > self._capacity:
                raise StoreUnavailable(f"the store is away, and the spool is full: {depth} events wait in it")
            self._connection.executemany(
                "INSERT INTO spool (topic, state, identity, spooled_at) VALUES (?, ?, ?, ?)", rows
            )

    def oldest(self, after: int, limit: int) -> list[tuple[int, Candidate | SpooledRequest]]:
        """Return what waits behind an id, oldest first, with ids: less if it is large. Raises StoreUnavailable."""
        with _unavailable(), self._lock:
            rows = bounded(
                self._connection.execute(
                    "SELECT id, topic, state, identity FROM spool WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
                ),
                lambda row: len(row[2]),
            )
        try:
            return [(place, self._decoded(topic, state, identity)) for place, topic, state, identity in rows]
        except (MapperDeserialisationError, msgspec.DecodeError) as error:
            raise StoreUnavailable(f"the spool cannot be read: {error}") from error

    def _decoded(self, topic: str, state: bytes, identity: bytes) -> Candidate | SpooledRequest:
        if topic == _UNREAD:
            return msgspec.json.decode(self._mapper.unseal(state), type=SpooledRequest)
        return Candidate(self._mapper.decode(topic, state), identity)

    def remove(self, ids: Sequence[int]) -> None:
        """Let go of what is in the store. Raises StoreUnavailable."""
        with _unavailable(), self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM spool WHERE id = ?", [(place,) for place in ids])

    def spooled(self) -> SpoolStatus:
        """Return how much waits. Raises StoreUnavailable."""
        with _unavailable(), self._lock:
            return SpoolStatus(*self._connection.execute(_SPOOLED).fetchone())

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()


class StoreAndForward:
    """Appends to the store or, when it does not answer in time, to the spool, which is emptied in the background.

    `append` is the store's, `keep` is its quarantine's; `forwarded` is called when something has gone from the spool
    into the store.
    """

    def __init__(
        self,
        append: Callable[[Sequence[Candidate]], list[Appended]],
        keep: Callable[..., int],
        spool: Spool,
        forwarded: Callable[[], None],
        *,
        timeout_s: float = STORE_TIMEOUT_S,
    ) -> None:
        self._append = append
        self._keep = keep
        self._spool = spool
        self._forwarded = forwarded
        self._timeout_s = timeout_s
        self._attempts = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._attempt: Future[list[Appended]] | None = None
        self._keepers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quarantine")
        self._keeping: Future[int] | None = None
        self._one_at_a_time = threading.Lock()
        self._refused: set[int] = set()
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._forward, name="forward")

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        """Make a batch durable; return where its events are, position 0 of those that wait in the spool.

        An event without an identity is given one, so that it is appended once even if the store took it after all.

        Raises StoreUnavailable if neither the store nor the spool takes it.
        """
        batch = [Candidate(event, identity or uuid4().bytes) for event, identity in batch]
        if self._attempt is None or self._attempt.done():
            self._attempt = self._attempts.submit(self._append, batch)
            try:
                return self._attempt.result(timeout=self._timeout_s)
            except StoreUnavailable as error:
                log.warning("the store is away; callbacks go into the spool", reason=str(error))
            except TimeoutError:
                log.warning("the store is away; callbacks go into the spool", reason="it did not answer in time")
        self._spool.keep(batch)
        self._news.set()
        return [Appended(0, repeated=False)] * len(batch)

    def keep(self, **told: Any) -> int:
        """Make what could not be read durable; return its id in the quarantine, or 0 if it waits in the spool.

        Takes what `Quarantine.keep` takes, and raises QuarantineFull and StoreUnavailable.
        """
        with self._one_at_a_time:
            if self._keeping is None or self._keeping.done():
                self._keeping = self._keepers.submit(self._keep, **told)
                try:
                    return self._keeping.result(timeout=self._timeout_s)
                except QuarantineFull:
                    raise
                except (StoreUnavailable, TimeoutError) as error:
                    log.warning("the store is away; what cannot be read goes into the spool", reason=str(error))
            self._spool.keep_unread(SpooledRequest(**told))
        self._news.set()
        return 0

    def spooled(self) -> SpoolStatus:
        """Return how much waits in the spool. Raises StoreUnavailable."""
        return self._spool.spooled()

    def start(self) -> None:
        """Begin to empty the spool."""
        self._thread.start()

    def stop(self) -> None:
        """Leave what is still in the spool to the next start."""
        self._stopping.set()
        self._news.set()
        self._thread.join()
        for threads in (self._attempts, self._keepers):
            threads.shutdown(wait=False, cancel_futures=True)
        self._spool.close()

    def _forward(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            try:
                self._empty()
            except StoreUnavailable:
                self._stopping.wait(_POLL_S)
            else:
                self._news.wait(_POLL_S)

    def _empty(self) -> None:
        """Append what is in the spool, oldest first; what alone the store refuses waits, and holds up nothing."""
        after = 0
        while not self._stopping.is_set() and (waiting := self._spool.oldest(after, _BATCH_SIZE)):
            after = waiting[-1][0]
            events = [(place, one) for place, one in waiting if isinstance(one, Candidate)]
            taken = [
                place for place, one in waiting if isinstance(one, SpooledRequest) and self._quarantines(place, one)
            ]
            try:
                self._append([candidate for _, candidate in events])
                taken += [place for place, _ in events]
            except StoreUnavailable:
                taken += [place for place, candidate in events if self._takes(place, candidate)]
            self._spool.remove(taken)
            if taken:
                self._forwarded()
                log.info("callbacks went from the spool into the store", count=len(taken))

    def _quarantines(self, place: int, unread: SpooledRequest) -> bool:
        """Tell whether the quarantine takes a request. Raises StoreUnavailable if the store takes nothing at all."""
        try:
            self._keep(**unread._asdict())
        except QuarantineFull as error:
            self._refuse(place, error)
            return False
        self._refused.discard(place)
        return True

    def _takes(self, place: int, candidate: Candidate) -> bool:
        """Tell whether the store takes one event. Raises StoreUnavailable if it takes nothing at all."""
        try:
            self._append([candidate])
        except StoreUnavailable as error:
            self._append([])
            self._refuse(place, error)
            return False
        self._refused.discard(place)
        return True

    def _refuse(self, place: int, error: StoreUnavailable) -> None:
        if place not in self._refused:
            self._refused.add(place)
            log.warning("the store refuses something, which stays in the spool", reason=str(error))


def spool_status(path: str) -> SpoolStatus:
    """Return how much waits in the spool at `path`, if there is one. Raises StoreUnavailable."""
    if not Path(path).exists():
        return SpoolStatus(0, 0)
    with _unavailable(), closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as spool:
        return SpoolStatus(*spool.execute(_SPOOLED).fetchone())


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the spool: {error}") from error
