"""The spool: a file beside the receiver for what the store does not take in time."""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog

from projector.clock import now_ms
from projector.database.sqlite import SQLiteConnection, create_statement, empty_log, errors_as, switch_to_wal
from projector.domain.events import Event
from projector.event_store import Candidate, OtherApp, StoreUnavailable
from projector.event_store.app import record_app
from projector.event_store.mapper import EventMapper
from projector.event_store.quarantine import Redacted, UnreadableRequest
from projector.event_store.reading import take_batch
from projector.event_store.tables import APP

_UNREADABLE: Final = "unread"
"""The topic of unreadable requests, as every released version stores it."""

_LOCK_TIMEOUT_S: Final = 0.5
_REDACTED_AT_ONCE: Final = 100
_PRAGMAS: Final = ("PRAGMA synchronous=FULL", "PRAGMA fullfsync=ON", "PRAGMA secure_delete=ON")
_TABLE: Final = """CREATE TABLE IF NOT EXISTS spool (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, state BLOB NOT NULL, identity BLOB NOT NULL,
    spooled_at INTEGER NOT NULL)"""
_SET_ASIDE: Final = """CREATE TABLE IF NOT EXISTS set_aside (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, state BLOB NOT NULL, identity BLOB NOT NULL,
    spooled_at INTEGER NOT NULL, reason TEXT NOT NULL)"""
_COLUMNS: Final = "id, topic, state, identity, spooled_at"
_STATUS: Final = "SELECT COUNT(*), COALESCE(MIN(spooled_at), 0) FROM spool"
_SET_ASIDE_STATUS: Final = "SELECT COUNT(*), COALESCE(MIN(reason), '') FROM set_aside"
_HAS_SET_ASIDE: Final = "SELECT 1 FROM sqlite_master WHERE name = 'set_aside'"

log = structlog.get_logger(__name__)
_unavailable: Final = errors_as(StoreUnavailable, name="the spool")


class SpoolStatus(NamedTuple):
    """How many entries wait in a spool, and since when the oldest does, in ms since 1970 UTC; 0 if there is none.

    `set_aside` counts, apart from them, the entries that cannot be decoded; `reason` is that of one of them.
    """

    depth: int
    oldest_at: int
    set_aside: int = 0
    reason: str = ""

    def age_s(self) -> float:
        """Return for how many seconds the oldest entry has waited."""
        return max(0.0, time.time() - self.oldest_at / 1000) if self.depth else 0.0

    def complaints(self) -> list[str]:
        """Return the reasons, a sentence each, why acknowledged callbacks do not reach the store."""
        if not self.set_aside:
            return []
        count = f"{self.set_aside} callback{'s' * (self.set_aside != 1)}"
        hint = "is CIPHER_KEY the one they were written with?"
        return [f"the spool has set aside {count} that cannot be decoded ({self.reason}); {hint}"]


class Spool:
    """Events and unreadable requests in an SQLite file, synced at every commit; at most `capacity` of both.

    Entries that cannot be decoded are set aside, in a table of their own, and tried again when the file is next opened.

    With an `sdk_app_id`, it raises OtherApp if it was used for another app.

    All methods may be called from any thread, and raise StoreUnavailable.
    """

    def __init__(self, path: str, mapper: EventMapper, capacity: int, sdk_app_id: int | None = None) -> None:
        self._mapper = mapper
        self._capacity = capacity
        self._lock = threading.Lock()
        with _unavailable:
            switch_to_wal(path)
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=_LOCK_TIMEOUT_S
            )
            for statement in (*_PRAGMAS, _TABLE, _SET_ASIDE, create_statement(APP, if_missing=True)):
                self._connection.execute(statement)
            if sdk_app_id is not None:
                self._require_app(path, sdk_app_id)
            self._restore()

    def keep(self, batch: Sequence[Candidate]) -> None:
        """Make events durable. Raises StoreUnavailable if there is no room."""
        self._insert([(*self._encoded(candidate), candidate.identity) for candidate in batch])

    def keep_unreadable(self, request: UnreadableRequest) -> None:
        """Make an unreadable request durable. Raises StoreUnavailable if there is no room."""
        self._insert([(*self._encoded(request), b"")])

    def oldest(self, after: int, limit: int) -> list[tuple[int, Candidate | UnreadableRequest]]:
        """Return entries after an id, oldest first, with their ids; fewer if they are large, or are set aside now."""
        while rows := self._rows(after, limit):
            entries, undecodable = [], []
            for entry_id, topic, state, identity in rows:
                try:
                    entries.append((entry_id, self._decoded(topic.decode(), state, identity)))
                except Exception as error:  # noqa: BLE001 - ciphers and compressors raise errors of any type
                    undecodable.append((" ".join(f"{error}".split()) or type(error).__name__, entry_id))
            if undecodable:
                self._set_aside(undecodable)
            if entries:
                return entries
        return []

    def remove(self, ids: Sequence[int]) -> None:
        """Delete entries that the store has taken."""
        with _unavailable, self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM spool WHERE id = ?", [(entry_id,) for entry_id in ids])

    def redact(
        self, redacted: Callable[[Event], Event], redacted_request: Callable[[UnreadableRequest], UnreadableRequest]
    ) -> Redacted:
        """Replace entries by what these functions return for them, some at a time."""

        def change(entry: Candidate | UnreadableRequest) -> Candidate | UnreadableRequest:
            if isinstance(entry, UnreadableRequest):
                return redacted_request(entry)
            return entry._replace(event=redacted(entry.event))

        last_id = count = undecodable = 0
        while rows := self._rows(last_id, _REDACTED_AT_ONCE):
            changes, failed = [], 0
            for entry_id, topic, state, identity in rows:
                try:
                    entry = self._decoded(topic.decode(), state, identity)
                except Exception:  # noqa: BLE001 - ciphers and compressors raise errors of any type
                    failed += 1
                    continue
                if (changed := change(entry)) != entry:
                    changes.append((self._encoded(changed)[1], entry_id, state))
            replaced = self._replace(changes) if changes else 0
            count += replaced
            if replaced == len(changes):
                last_id = rows[-1][0]
                undecodable += failed
        return Redacted(count, undecodable + self.status().set_aside)

    def erase_traces(self) -> bool:
        """Remove what was redacted from the files; return False if others use them at the moment."""
        with _unavailable, self._lock:
            return empty_log(SQLiteConnection(self._connection))

    def status(self) -> SpoolStatus:
        with _unavailable, self._lock:
            return _status(self._connection)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _insert(self, rows: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        spooled_at = now_ms()
        with _unavailable, self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            (depth,) = self._connection.execute("SELECT COUNT(*) FROM spool").fetchone()
            if depth + len(rows) > self._capacity:
                raise StoreUnavailable(f"the database is unavailable and the spool is full: {depth} events wait in it")
            self._connection.executemany(
                "INSERT INTO spool (topic, state, identity, spooled_at) VALUES (?, ?, ?, ?)",
                [(*row, spooled_at) for row in rows],
            )

    def _replace(self, changes: Sequence[tuple[bytes, int, bytes]]) -> int:
        """Replace states: new state, id, state before; return of how many, without those changed or gone meanwhile."""
        with _unavailable, self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            return self._connection.executemany(
                "UPDATE spool SET state = ? WHERE id = ? AND state = ?", changes
            ).rowcount

    def _rows(self, after: int, limit: int) -> list[tuple[int, bytes, bytes, bytes]]:
        """Return rows after an id as bytes, whatever is stored in them."""
        columns = ", ".join(f"CAST({column} AS BLOB)" for column in ("topic", "state", "identity"))
        query = f"SELECT id, {columns} FROM spool WHERE id > ? ORDER BY id LIMIT ?"
        with _unavailable, self._lock:
            return take_batch(self._connection.execute(query, (after, limit)), lambda row: len(row[2]))

    def _set_aside(self, undecodable: Sequence[tuple[str, int]]) -> None:
        ids = [(entry_id,) for _, entry_id in undecodable]
        with _unavailable, self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                f"INSERT OR REPLACE INTO set_aside SELECT {_COLUMNS}, ? FROM spool WHERE id = ?", undecodable
            )
            self._connection.executemany("DELETE FROM spool WHERE id = ?", ids)
        log.error("set aside callbacks in the spool that cannot be decoded", count=len(ids), reason=undecodable[0][0])

    def _require_app(self, path: str, sdk_app_id: int) -> None:
        recorded = record_app(SQLiteConnection(self._connection), sdk_app_id)
        if recorded != sdk_app_id:
            self._connection.close()
            raise OtherApp(f"the spool {path}", recorded, sdk_app_id, "PROJECTOR_SPOOL_PATH")

    def _restore(self) -> None:
        """Try again what was set aside, now that the key may be the right one."""
        if self._connection.execute("SELECT 1 FROM set_aside").fetchone():
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(f"INSERT OR IGNORE INTO spool ({_COLUMNS}) SELECT {_COLUMNS} FROM set_aside")
                self._connection.execute("DELETE FROM set_aside")

    def _encoded(self, entry: Candidate | UnreadableRequest) -> tuple[str, bytes]:
        """Return the topic and the state of an entry."""
        if isinstance(entry, UnreadableRequest):
            return _UNREADABLE, self._mapper.seal(msgspec.json.encode(entry))
        stored = self._mapper.to_stored_event(entry.event)
        return stored.topic, stored.state

    def _decoded(self, topic: str, state: bytes, identity: bytes) -> Candidate | UnreadableRequest:
        if topic == _UNREADABLE:
            return msgspec.json.decode(self._mapper.unseal(state), type=UnreadableRequest)
        return Candidate(self._mapper.decode(topic, state), identity)


def spool_status(path: str) -> SpoolStatus:
    """Return the status of the spool at `path`, which need not exist. Raises StoreUnavailable."""
    if not Path(path).exists():
        return SpoolStatus(0, 0)
    with _unavailable, closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as spool:
        return _status(spool)


def _status(connection: sqlite3.Connection) -> SpoolStatus:
    """Return the status of a spool, which an earlier version may have written."""
    waiting = connection.execute(_STATUS).fetchone()
    set_aside = (
        connection.execute(_SET_ASIDE_STATUS).fetchone() if connection.execute(_HAS_SET_ASIDE).fetchone() else ()
    )
    return SpoolStatus(*waiting, *set_aside)
