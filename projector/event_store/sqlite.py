"""The event store on SQLite: a persistence module of the event-sourcing library.

`PERSISTENCE_MODULE=projector.event_store.sqlite` opens it with the library alone. Beside the library's own
`stored_events` stand `identities`, which makes a repeated delivery the same event, `quarantine`, who is `forgotten`,
and `redactions`, which says where.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from projector.database.sqlite import switch_to_wal
from projector.domain.events import Recorded
from projector.domain.redaction import redact
from projector.event_store import ALL_GROUPS, GroupRange, in_background, ranges_between
from projector.event_store.fingerprint import fingerprint
from projector.event_store.forgotten import Pseudonyms
from projector.event_store.mapper import MAPPER_TOPIC, mapper_of
from projector.event_store.sqlite_quarantine import SQLiteQuarantine
from projector.event_store.sqlite_recorder import (
    LOCK_TIMEOUT_S,
    Factory,
    GroupRecorder,
    pseudonyms,
    unavailable,
)
from projector.settings import MAX_QUARANTINED

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from projector.event_store import Appended, Candidate
    from projector.event_store.mapper import EventMapper
    from projector.event_store.sqlite_recorder import Row

STREAMS_BATCH_SIZE: Final = 2_000

SORTED_FROM: Final = 100_000
"""From so many events on they are sorted and not looked up: as fast in memory, and far faster from a disk."""

_WATCH_S: Final = 0.1


class SQLiteEventStore:
    """`EventStore` in one SQLite file, in WAL mode, synced at every commit."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper) -> None:
        self._recorder = recorder
        self._mapper = mapper
        self._pseudonyms = Pseudonyms()

    @property
    def mapper(self) -> EventMapper:
        return self._mapper

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        with unavailable():
            while True:
                known = self._pseudonyms
                stored = [(self._mapper.to_stored_event(known.instead(event)), identity) for event, identity in batch]
                if (appended := self._recorder.append(stored, known.through)) is not None:
                    return appended
                with self._recorder.datastore.transaction(commit=False) as cursor:
                    self._pseudonyms = pseudonyms(cursor)

    def read(self, after: int, limit: int) -> list[Recorded]:
        with unavailable():
            rows = self._recorder.select("rowid > ? ORDER BY rowid LIMIT ?", (after, limit))
        return self._recorded(rows)

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        with unavailable():
            condition = "originator_id = ? AND originator_version > ? ORDER BY originator_version LIMIT ?"
            rows = self._recorder.select(condition, (group_id, after_version, limit))
        return self._recorded(rows)

    def read_streams(self, through: int, bounds: GroupRange = ALL_GROUPS) -> Iterator[list[Recorded]]:
        with unavailable():
            for rows in self._sorted(through, bounds) if through >= SORTED_FROM else self._looked_up(through, bounds):
                yield self._recorded(rows)

    def _looked_up(self, through: int, bounds: GroupRange) -> Iterator[list[Any]]:
        behind = (bounds.first, 0)
        while rows := self._recorder.select_streams(through, behind, bounds.end, STREAMS_BATCH_SIZE):
            yield rows
            behind = rows[-1][1:3]

    def _sorted(self, through: int, bounds: GroupRange) -> Iterator[list[Any]]:
        return self._recorder.scan_streams(through, bounds, STREAMS_BATCH_SIZE)

    def split(self, through: int, parts: int) -> list[GroupRange]:
        with unavailable():
            ends = [self._recorder.select_group_at(through * number // parts) for number in range(1, parts)]
        return ranges_between(ends)

    def head(self) -> int:
        with unavailable():
            return self._recorder.max_notification_id() or 0

    def forget(self, account: str) -> str:
        with unavailable(), self._recorder.writing() as cursor:
            known = pseudonyms(cursor)
            if pseudonym := known.of({account}).get(account):
                return pseudonym
            another = known.another(account)
            cursor.execute("INSERT INTO forgotten (digest, key, pseudonym) VALUES (?, ?, ?)", another)
            return another.pseudonym

    def redact(self, positions: Sequence[int], names: Mapping[str, str]) -> None:
        """No trace of what was there stays in the file, nor in the log that is written ahead."""
        table = self._recorder.events_table_name
        with unavailable():
            with self._recorder.writing() as cursor:
                columns = "rowid, originator_id, originator_version, topic, state"
                for position in positions:
                    rows = cursor.execute(f"SELECT {columns} FROM {table} WHERE rowid = ?", (position,)).fetchall()
                    (recorded,) = self._recorded(rows)
                    state = self._mapper.to_stored_event(redact(recorded.event, names)).state
                    cursor.execute(f"UPDATE {table} SET state = ? WHERE rowid = ?", (state, position))
                    cursor.execute("INSERT OR IGNORE INTO redactions VALUES (?, ?)", (position, fingerprint(recorded)))
            self._recorder.empty_log()

    def redactions(self) -> dict[int, bytes]:
        with unavailable(), self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT position, fingerprint FROM redactions")
            return {row["position"]: row["fingerprint"] for row in cursor.fetchall()}

    def dangling_identities(self) -> int:
        with unavailable(), self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute(
                "SELECT COUNT(*) - COUNT(DISTINCT stored.rowid) FROM identities"
                f" LEFT JOIN {self._recorder.events_table_name} AS stored ON stored.rowid = identities.position"
            )
            return int(cursor.fetchone()[0])

    @contextmanager
    def watching(self, wake: Callable[[], None]) -> Iterator[None]:
        # A file notifies nobody; polling its data_version is cheap.
        with in_background(partial(_watch, self._recorder.datastore.pool.db_name, wake)):
            yield

    def close(self) -> None:
        self._recorder.datastore.close()

    def _recorded(self, rows: list[Row]) -> list[Recorded]:
        decode = self._mapper.decode_or_mark
        return [
            Recorded(position, decode(group_id, topic, state), version)
            for position, group_id, version, topic, state in rows
        ]


def open_sqlite(
    path: str, library_environment: Mapping[str, str], max_quarantined: int = MAX_QUARANTINED
) -> tuple[SQLiteEventStore, SQLiteQuarantine]:
    """Open, and create where missing, the store in the SQLite file at `path`.

    `library_environment` carries the event-sourcing library's own settings: compressor, cipher and its key.

    Raises StoreUnavailable if the file cannot be opened or is no such store.
    """
    factory = Factory(
        {
            "MAPPER_TOPIC": MAPPER_TOPIC,
            **library_environment,
            "SQLITE_DBNAME": path,
            "SQLITE_LOCK_TIMEOUT": str(LOCK_TIMEOUT_S),
            "ORIGINATOR_ID_TYPE": "text",
        }
    )
    with unavailable():
        switch_to_wal(path)
        recorder = factory.application_recorder()
    assert isinstance(recorder, GroupRecorder)
    mapper = mapper_of(factory)
    return SQLiteEventStore(recorder, mapper), SQLiteQuarantine(recorder, mapper, max_quarantined)


def _watch(path: str, wake: Callable[[], None], stopping: threading.Event) -> None:
    """Wake somebody whenever the file has changed, until stopped."""
    seen = None
    with closing(sqlite3.connect(path, uri=True, isolation_level=None)) as connection:
        while not stopping.wait(_WATCH_S):
            try:
                now = connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                now = None
            if now is None or now != seen:
                seen = now
                wake()
