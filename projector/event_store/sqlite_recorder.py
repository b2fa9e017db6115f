"""The event-sourcing library's recorder on SQLite, over durable connections, and what stands beside its table."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from eventsourcing import sqlite as library
from eventsourcing.persistence import PersistenceError, StoredEvent

from projector.database.sqlite import errors_as
from projector.event_store import Appended, GroupRange, StoreUnavailable, bounded
from projector.event_store.forgotten import Pseudonyms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row: TypeAlias = tuple[int, str, int, str, bytes]
"""Position, group id, version, topic, state."""

LOCK_TIMEOUT_S: Final = 1
"""A sender waits two seconds: it must hear within them that the store is locked."""

CACHE_KIB: Final = 8_000
_SORTING_KIB: Final = 64_000
_MIN_PLACEHOLDERS: Final = 16

_PRAGMAS: Final = (
    "synchronous=FULL",
    "fullfsync=ON",
    f"cache_size={-CACHE_KIB}",
    "wal_autocheckpoint=4000",
    "secure_delete=ON",
)
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
    """CREATE TABLE IF NOT EXISTS forgotten (
        id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, key BLOB NOT NULL, pseudonym TEXT NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS redactions (position INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL)",
)
_FORGOTTEN: Final = "SELECT id, digest, key, pseudonym FROM forgotten ORDER BY id"


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

    def append(
        self, batch: Sequence[tuple[StoredEvent, bytes | None]], forgotten_through: int
    ) -> list[Appended] | None:
        """Append events whose identity is new, each as the next version of its stream; None if more are forgotten."""
        with self.writing() as cursor:
            if cursor.execute("SELECT COALESCE(MAX(id), 0) FROM forgotten").fetchone()[0] != forgotten_through:
                return None
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

    def select_streams(self, through: int, behind: tuple[str, int], end: str | None, limit: int) -> list[Row]:
        """Return events behind a place in the order of streams."""
        bounds, arguments = ("", ()) if end is None else (" AND originator_id < ?", (end,))
        with self.datastore.get_connection(commit=False) as connection, connection.cursor() as cursor:
            cursor.row_factory = None
            cursor.execute(
                f"SELECT rowid, originator_id, originator_version, topic, state FROM {self.events_table_name}"
                f" WHERE (originator_id, originator_version) > (?, ?){bounds} AND +rowid <= ?"
                " ORDER BY originator_id, originator_version LIMIT ?",
                (*behind, *arguments, through, limit),
            )
            return bounded(cursor, _size)

    def scan_streams(self, through: int, bounds: GroupRange, size: int) -> Iterator[list[Row]]:
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
                while rows := bounded(islice(cursor, size), _size):
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

    def select(self, condition: str, arguments: Sequence[Any]) -> list[Row]:
        """Return events that meet a condition, fewer if they are large."""
        with self.datastore.get_connection(commit=False) as connection, connection.cursor() as cursor:
            cursor.row_factory = None
            question = f"SELECT rowid, originator_id, originator_version, topic, state FROM {self.events_table_name}"
            cursor.execute(f"{question} WHERE {condition}", arguments)
            return bounded(cursor, _size)

    def empty_log(self) -> None:
        """Move all that is in the log into the file, and cut the log; as far as nobody reads from it just now."""
        with self.datastore.get_connection(commit=False) as connection, connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _known(self, cursor: sqlite3.Cursor, identities: list[bytes]) -> dict[bytes | None, int]:
        # As many marks as a power of two, so that there are few statements to prepare; what is left over is NULL.
        marks = max(_MIN_PLACEHOLDERS, 1 << (len(identities) - 1).bit_length())
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


def _size(row: Row) -> int:
    return len(row[4])


def pseudonyms(cursor: library.SQLiteCursor | sqlite3.Cursor) -> Pseudonyms:
    """Return who is forgotten, as a transaction sees it."""
    cursor.execute(_FORGOTTEN)
    return Pseudonyms(map(tuple, cursor.fetchall()))


unavailable: Final = partial(errors_as, StoreUnavailable, also=(PersistenceError,))
"""Raise StoreUnavailable in place of the errors of the database and of the event-sourcing library."""
