"""The event store on SQLite: a persistence module of the event-sourcing library.

`PERSISTENCE_MODULE=projector.event_store.sqlite` opens it with the library alone. Beside the library's own
`stored_events` stand `identities`, which makes a repeated delivery the same event, and `quarantine`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from eventsourcing import sqlite as library
from eventsourcing.persistence import (
    Notification,
    PersistenceError,
    StoredEvent,
)

from projector.domain.events import Recorded
from projector.event_store import (
    EVERY_GROUP,
    Appended,
    Bounds,
    Candidate,
    Quarantined,
    StoreUnavailable,
    bounds_between,
    digest,
    in_background,
)
from projector.event_store.mapper import MAPPER_TOPIC, mapper_of
from projector.sqlite_files import switch_to_wal

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from projector.event_store.mapper import EventMapper

LOCK_TIMEOUT_S: Final = 1
"""A sender waits two seconds: it must hear within them that the store is locked."""

STREAMS_BATCH_SIZE: Final = 2_000

SORTED_FROM: Final = 100_000
"""From so many events on they are sorted and not looked up: as fast in memory, and far faster from a disk."""

CACHE_KIB: Final = 8_000
_SORTING_KIB: Final = 64_000
_FEWEST_MARKS: Final = 16
_WATCH_S: Final = 0.1

_PRAGMAS: Final = ("synchronous=FULL", "fullfsync=ON", f"cache_size={-CACHE_KIB}", "wal_autocheckpoint=4000")
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS identities (identity BLOB PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS quarantine (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        received_at INTEGER NOT NULL,
        times INTEGER NOT NULL,
        reason TEXT NOT NULL,
        command TEXT,
        platform TEXT,
        body BLOB NOT NULL,
        position INTEGER)""",
    "CREATE INDEX IF NOT EXISTS quarantine_waiting ON quarantine (id) WHERE position IS NULL",
)


class DurablePool(library.SQLiteConnectionPool):
    """Connections whose commits survive the loss of power."""

    def _create_connection(self) -> library.SQLiteConnection:
        # The library's own connections keep one prepared statement each, and so prepare nearly every one anew.
        connection = sqlite3.connect(
            self.db_name, uri=True, check_same_thread=False, isolation_level=None, timeout=LOCK_TIMEOUT_S
        )
        connection.row_factory = sqlite3.Row
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return library.SQLiteConnection(sqlite_conn=connection, max_age=self.max_age)


class GroupRecorder(library.SQLiteApplicationRecorder):
    """The library's recorder, which also gives versions and keeps delivery identities in the same transaction."""

    def construct_create_table_statements(self) -> list[str]:
        """Return the library's table and ours beside it."""
        return [*super().construct_create_table_statements(), *_SCHEMA]

    def create_table(self) -> None:
        """Create the tables, waiting for whoever else does so."""
        with self.writing() as cursor:
            for statement in self.create_table_statements:
                cursor.execute(statement)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Cursor]:
        """Open a transaction that holds the write lock from its start, so that what it reads stays true."""
        with self.datastore.get_connection(commit=True) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def append(self, batch: Sequence[tuple[StoredEvent, bytes | None]]) -> list[Appended]:
        """Append events whose identity is new, each as the next version of its stream."""
        with self.writing() as cursor:
            known = self._known(cursor, [identity for _, identity in batch if identity])
            versions = self._versions(cursor, {str(event.originator_id) for event, _ in batch})
            (head,) = cursor.execute(f"SELECT COALESCE(MAX(rowid), 0) FROM {self.events_table_name}").fetchone()
            events, identities, appended = [], [], []
            for event, identity in batch:
                if identity in known:
                    appended.append(Appended(known[identity], repeated=True))
                    continue
                head += 1
                group_id = str(event.originator_id)
                versions[group_id] = version = versions[group_id] + 1
                events.append((head, group_id, version, event.topic, event.state))
                if identity:
                    known[identity] = head
                    identities.append((identity, head))
                appended.append(Appended(head, repeated=False))
            cursor.executemany(
                f"INSERT INTO {self.events_table_name} (rowid, originator_id, originator_version, topic, state)"
                " VALUES (?, ?, ?, ?, ?)",
                events,
            )
            cursor.executemany("INSERT INTO identities VALUES (?, ?)", identities)
            return appended

    def select_streams(
        self, through: int, behind: tuple[str, int], end: str | None, limit: int
    ) -> list[tuple[int, str, int, str, bytes]]:
        """Return (position, group id, version, topic, state) of events behind a place in the order of streams."""
        bounds, arguments = ("", ()) if end is None else (" AND originator_id < ?", (end,))
        with self.datastore.get_connection(commit=False) as connection, connection.cursor() as cursor:
            cursor.row_factory = None
            cursor.execute(
                f"SELECT rowid, originator_id, originator_version, topic, state FROM {self.events_table_name}"
                f" WHERE (originator_id, originator_version) > (?, ?){bounds} AND +rowid <= ?"
                " ORDER BY originator_id, originator_version LIMIT ?",
                (*behind, *arguments, through, limit),
            )
            return cursor.fetchall()

    def scan_streams(self, through: int, bounds: Bounds, size: int) -> Iterator[list[tuple[int, str, int, str, bytes]]]:
        """Give the same as `select_streams`, in lists, from one pass over the table that is sorted on the way."""
        condition, arguments = ("", ()) if bounds.end is None else (" AND originator_id < ?", (bounds.end,))
        with self.datastore.get_connection(commit=False) as connection, connection.cursor() as cursor:
            cursor.row_factory = None
            cursor.execute(f"PRAGMA cache_size={-_SORTING_KIB}")
            try:
                cursor.execute(
                    f"SELECT rowid, originator_id, originator_version, topic, state FROM {self.events_table_name}"
                    f" NOT INDEXED WHERE rowid <= ? AND originator_id >= ?{condition}"
                    " ORDER BY originator_id, originator_version",
                    (through, bounds.first, *arguments),
                )
                while rows := cursor.fetchmany(size):
                    yield rows
            finally:
                cursor.execute(f"PRAGMA cache_size={-CACHE_KIB}")

    def select_group_at(self, place: int) -> str | None:
        """Return the group whose event has so many others before it in the order of streams."""
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(
                f"SELECT originator_id FROM {self.events_table_name}"
                " ORDER BY originator_id, originator_version LIMIT 1 OFFSET ?",
                (place,),
            )
            row = cursor.fetchone()
            return str(row[0]) if row else None

    def select_stream(self, group_id: str, after_version: int, limit: int) -> list[Notification]:
        """Return events of one stream with their positions."""
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(
                f"SELECT rowid, * FROM {self.events_table_name}"
                " WHERE originator_id = ? AND originator_version > ? ORDER BY originator_version LIMIT ?",
                (group_id, after_version, limit),
            )
            return [
                Notification(row["originator_id"], row["originator_version"], row["topic"], row["state"], row["rowid"])
                for row in cursor.fetchall()
            ]

    def _known(self, cursor: sqlite3.Cursor, identities: list[bytes]) -> dict[bytes | None, int]:
        # As many marks as a power of two, so that there are few statements to prepare; what is left over is NULL.
        marks = max(_FEWEST_MARKS, 1 << (len(identities) - 1).bit_length())
        found = cursor.execute(
            f"SELECT identity, position FROM identities WHERE identity IN ({','.join('?' * marks)})",
            (*identities, *[None] * (marks - len(identities))),
        )
        return dict(found.fetchall())

    def _versions(self, cursor: sqlite3.Cursor, group_ids: set[str]) -> dict[str, int]:
        newest = f"SELECT MAX(originator_version) FROM {self.events_table_name} WHERE originator_id = ?"
        return {group_id: cursor.execute(newest, (group_id,)).fetchone()[0] or 0 for group_id in group_ids}


class Factory(library.SQLiteFactory):
    """Builds the recorder over durable connections."""

    application_recorder_class = GroupRecorder

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        library_pool = self.datastore.pool
        self.datastore.pool = DurablePool(db_name=library_pool.db_name, lock_timeout=library_pool.lock_timeout)


class SQLiteEventStore:
    """`EventStore` in one SQLite file, in WAL mode, synced at every commit."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper) -> None:
        self._recorder = recorder
        self._mapper = mapper

    @property
    def mapper(self) -> EventMapper:
        """See `EventStore`."""
        return self._mapper

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        """See `EventStore`."""
        stored = [(self._mapper.to_stored_event(event), identity) for event, identity in batch]
        with _unavailable():
            return self._recorder.append(stored)

    def read(self, after: int, limit: int) -> list[Recorded]:
        """See `EventStore`."""
        with _unavailable():
            rows = self._recorder.select_notifications(after, limit, inclusive_of_start=False)
        return [self._recorded(row) for row in rows]

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        """See `EventStore`."""
        with _unavailable():
            rows = self._recorder.select_stream(group_id, after_version, limit)
        return [self._recorded(row) for row in rows]

    def read_streams(self, through: int, bounds: Bounds = EVERY_GROUP) -> Iterator[list[Recorded]]:
        """See `EventStore`."""
        decode = self._mapper.decode_or_mark
        with _unavailable():
            for rows in self._sorted(through, bounds) if through >= SORTED_FROM else self._looked_up(through, bounds):
                yield [
                    Recorded(position, decode(group_id, topic, state), version)
                    for position, group_id, version, topic, state in rows
                ]

    def _looked_up(self, through: int, bounds: Bounds) -> Iterator[list[Any]]:
        behind = (bounds.first, 0)
        while rows := self._recorder.select_streams(through, behind, bounds.end, STREAMS_BATCH_SIZE):
            yield rows
            behind = rows[-1][1:3]

    def _sorted(self, through: int, bounds: Bounds) -> Iterator[list[Any]]:
        return self._recorder.scan_streams(through, bounds, STREAMS_BATCH_SIZE)

    def split(self, through: int, parts: int) -> list[Bounds]:
        """See `EventStore`."""
        with _unavailable():
            ends = [self._recorder.select_group_at(through * number // parts) for number in range(1, parts)]
        return bounds_between(ends)

    def head(self) -> int:
        """See `EventStore`."""
        with _unavailable():
            return self._recorder.max_notification_id() or 0

    def identities_astray(self) -> int:
        """See `EventStore`."""
        with _unavailable(), self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute(
                "SELECT COUNT(*) - COUNT(DISTINCT stored.rowid) FROM identities"
                f" LEFT JOIN {self._recorder.events_table_name} AS stored ON stored.rowid = identities.position"
            )
            return int(cursor.fetchone()[0])

    @contextmanager
    def watching(self, wake: Callable[[], None]) -> Iterator[None]:
        """See `EventStore`. A file tells nobody; a number in it, which is cheap to look at, says whether it changed."""
        with in_background(partial(_watch, self._recorder.datastore.pool.db_name, wake)):
            yield

    def close(self) -> None:
        """See `EventStore`."""
        self._recorder.datastore.close()

    def _recorded(self, row: Notification) -> Recorded:
        version = row.originator_version
        return Recorded(row.id, self._mapper.decode_or_mark(str(row.originator_id), row.topic, row.state), version)


class SQLiteQuarantine:
    """`Quarantine` in a table beside the events; bodies go through the same compressor and cipher."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper) -> None:
        self._recorder = recorder
        self._mapper = mapper

    def keep(self, *, body: bytes, reason: str, command: str | None, platform: str | None, received_at: int) -> int:
        """See `Quarantine`."""
        with _unavailable(), self._recorder.writing() as cursor:
            cursor.execute(
                "INSERT INTO quarantine (digest, received_at, times, reason, command, platform, body)"
                " VALUES (?, ?, 1, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET times = times + 1 RETURNING id",
                (digest(command, body), received_at, reason, command, platform, self._mapper.seal(body)),
            )
            return int(cursor.fetchone()[0])

    def waiting(self, after: int = 0, limit: int = 100) -> list[Quarantined]:
        """See `Quarantine`."""
        return self._select("position IS NULL AND id > ? ORDER BY id LIMIT ?", (after, limit))

    def find(self, quarantine_id: int) -> Quarantined | None:
        """See `Quarantine`."""
        return next(iter(self._select("id = ?", (quarantine_id,))), None)

    def release(self, quarantine_id: int, position: int) -> None:
        """See `Quarantine`."""
        with _unavailable(), self._recorder.writing() as cursor:
            cursor.execute("UPDATE quarantine SET position = ? WHERE id = ?", (position, quarantine_id))

    def count(self) -> int:
        """See `Quarantine`."""
        with _unavailable(), self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT COUNT(*) FROM quarantine WHERE position IS NULL")
            return int(cursor.fetchone()[0])

    def _select(self, condition: str, arguments: tuple[int, ...]) -> list[Quarantined]:
        columns = "id, received_at, times, reason, command, platform, body, position"
        with _unavailable(), self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute(f"SELECT {columns} FROM quarantine WHERE {condition}", arguments)
            rows = [Quarantined(*row) for row in cursor.fetchall()]
        return [self._mapper.unsealed(row) for row in rows]


def open_sqlite(path: str, library_environment: Mapping[str, str]) -> tuple[SQLiteEventStore, SQLiteQuarantine]:
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
    with _unavailable():
        switch_to_wal(path)
        recorder = factory.application_recorder()
    assert isinstance(recorder, GroupRecorder)
    mapper = mapper_of(factory)
    return SQLiteEventStore(recorder, mapper), SQLiteQuarantine(recorder, mapper)


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


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (PersistenceError, sqlite3.Error) as error:
        raise StoreUnavailable(f"SQLite: {error}") from error
