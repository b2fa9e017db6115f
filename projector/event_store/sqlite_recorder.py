"""The event-sourcing library's recorder on SQLite: durable connections, and batches with versions and identities."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final, TypeAlias

from eventsourcing import sqlite as library
from eventsourcing.persistence import PersistenceError, StoredEvent

from projector.database.sqlite import SQLiteConnection, create_statement, empty_log, errors_as
from projector.event_store import Appended, GroupRange, StoreUnavailable
from projector.event_store.pseudonyms import newest_pseudonym
from projector.event_store.reading import take_batch
from projector.event_store.tables import INDEXES, TABLES

Row: TypeAlias = tuple[int, str, int, str, bytes]
"""Position, group id, version, topic, state."""

LOCK_TIMEOUT_S: Final = 1
"""The vendor waits two seconds, within which it must get the answer that the store is locked."""

_CACHE_KIB: Final = 8_000
_SORT_CACHE_KIB: Final = 64_000
_MAX_DAMAGES: Final = 10
_MAX_ROWS: Final = 128

_PRAGMAS: Final = (
    "synchronous=FULL",
    "fullfsync=ON",
    f"cache_size={-_CACHE_KIB}",
    "wal_autocheckpoint=4000",
    "secure_delete=ON",
)
_SELECT: Final = "SELECT rowid, originator_id, originator_version, topic, state FROM stored_events"
_ADD_EVENTS: Final = (
    "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state)"
    " SELECT * FROM given WHERE column1 IS NOT NULL"
)
_ADD_IDENTITIES: Final = "INSERT INTO identities SELECT * FROM given WHERE column1 IS NOT NULL"
_KNOWN: Final = "SELECT identity, position FROM given CROSS JOIN identities ON identity = column1"
_VERSIONS: Final = (
    "SELECT column1, COALESCE((SELECT MAX(originator_version) FROM stored_events WHERE originator_id = column1), 0)"
    " FROM given WHERE column1 IS NOT NULL"
)

unavailable: Final = errors_as(StoreUnavailable, also=(PersistenceError,))
"""Raises StoreUnavailable in place of the errors of SQLite and of the event-sourcing library."""


class DurablePool(library.SQLiteConnectionPool):
    """Connections whose commits survive the loss of power, or on which nothing can be written."""

    read_only = False

    def _create_connection(self) -> library.SQLiteConnection:
        # The library's own connections cache a single prepared statement, and so prepare nearly every statement again.
        connection = sqlite3.connect(
            self.db_name, uri=True, check_same_thread=False, isolation_level=None, timeout=LOCK_TIMEOUT_S
        )
        connection.row_factory = sqlite3.Row
        for pragma in ("query_only=ON",) if self.read_only else _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return library.SQLiteConnection(sqlite_conn=connection, max_age=self.max_age)


class GroupRecorder(library.SQLiteApplicationRecorder):
    """The library's recorder, which also assigns versions and keeps identities. It is `Transactions`, too."""

    def construct_create_table_statements(self) -> list[str]:
        return [
            *super().construct_create_table_statements(),
            *(create_statement(table, if_missing=True) for table in TABLES),
            *(index.statement for index in INDEXES),
        ]

    def create_table(self) -> None:
        """Create missing tables, one process at a time."""
        with self._writing() as cursor:
            for statement in self.create_table_statements:
                cursor.execute(statement)

    @contextmanager
    def reading(self) -> Iterator[SQLiteConnection]:
        with unavailable, self._cursor(commit=False) as cursor:
            yield SQLiteConnection(cursor.connection)

    @contextmanager
    def writing(self) -> Iterator[SQLiteConnection]:
        with unavailable, self._writing() as cursor:
            yield SQLiteConnection(cursor.connection)

    exclusive = writing

    def damage(self) -> list[str]:
        with self.reading() as connection:
            found = [str(line) for (line,) in connection.execute(f"PRAGMA quick_check({_MAX_DAMAGES})")]
        return [" ".join(line.split()) for line in found if line != "ok"]

    def erase_traces(self) -> bool:
        with self.reading() as connection:
            return empty_log(connection)

    def append(
        self, batch: Sequence[tuple[StoredEvent, bytes | None]], pseudonyms_through: int
    ) -> list[Appended] | None:
        """Append events whose identity is new, each as the next version of its stream.

        Return None, and append nothing, if more accounts are forgotten than those up to `pseudonyms_through`.
        """
        with self._writing() as cursor:
            if newest_pseudonym(SQLiteConnection(cursor.connection)) != pseudonyms_through:
                return None
            known = dict(_execute(cursor, _KNOWN, [(identity,) for _, identity in batch if identity]))
            versions = dict(_execute(cursor, _VERSIONS, {(str(event.originator_id),) for event, _ in batch}))
            (head,) = cursor.execute("SELECT COALESCE(MAX(rowid), 0) FROM stored_events").fetchone()
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
            _execute(cursor, _ADD_EVENTS, events)
            _execute(cursor, _ADD_IDENTITIES, identities)
            return appended

    def select(self, condition: str, arguments: Sequence[Any]) -> list[Row]:
        """Return events that meet a condition; fewer if they are large."""
        with self._selecting() as cursor:
            cursor.execute(f"{_SELECT} WHERE {condition}", arguments)
            return take_batch(cursor, _size)

    def select_streams(self, through: int, after: tuple[str, int], end: str | None, limit: int) -> list[Row]:
        """Return events after a group id and version, ordered by both."""
        below, arguments = ("", ()) if end is None else (" AND originator_id < ?", (end,))
        return self.select(
            f"(originator_id, originator_version) > (?, ?){below} AND +rowid <= ?"
            " ORDER BY originator_id, originator_version LIMIT ?",
            (*after, *arguments, through, limit),
        )

    def scan_streams(self, through: int, groups: GroupRange, batch_size: int) -> Iterator[list[Row]]:
        """Yield what `select_streams` returns, in batches, from one scan of the table, which is sorted."""
        below, arguments = ("", ()) if groups.end is None else (" AND originator_id < ?", (groups.end,))
        with self._selecting() as cursor:
            cursor.execute(f"PRAGMA cache_size={-_SORT_CACHE_KIB}")
            try:
                cursor.execute(
                    f"{_SELECT} NOT INDEXED WHERE rowid <= ? AND originator_id >= ?{below}"
                    " ORDER BY originator_id, originator_version",
                    (through, groups.first, *arguments),
                )
                while rows := take_batch(islice(cursor, batch_size), _size):
                    yield rows
            finally:
                cursor.execute(f"PRAGMA cache_size={-_CACHE_KIB}")

    def select_group_at(self, offset: int) -> str | None:
        """Return the group of the event at an offset in the order of streams."""
        with self._selecting() as cursor:
            cursor.execute(
                "SELECT originator_id FROM stored_events ORDER BY originator_id, originator_version LIMIT 1 OFFSET ?",
                (offset,),
            )
            row = cursor.fetchone()
            return str(row[0]) if row else None

    @contextmanager
    def _selecting(self) -> Iterator[sqlite3.Cursor]:
        with self._cursor(commit=False) as cursor:
            cursor.row_factory = None
            yield cursor

    @contextmanager
    def _cursor(self, *, commit: bool) -> Iterator[sqlite3.Cursor]:
        with self.datastore.get_connection(commit=commit) as connection, connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """Open a transaction that holds the write lock from its start, so that what it reads stays true."""
        with self._cursor(commit=True) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                cursor.connection.rollback()
                raise


class Factory(library.SQLiteFactory):
    """Builds the recorder over durable connections. With `read_only`, it writes nothing, and creates no tables."""

    application_recorder_class = GroupRecorder

    def __init__(self, env: Any, *, read_only: bool = False) -> None:
        super().__init__({**env, "CREATE_TABLE": "no"} if read_only else env)
        library_pool = self.datastore.pool
        self.datastore.pool = DurablePool(db_name=library_pool.db_name, lock_timeout=library_pool.lock_timeout)
        self.datastore.pool.read_only = read_only


def _size(row: Row) -> int:
    return len(row[4])


def _execute(cursor: sqlite3.Cursor, statement: str, rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Execute a statement over the rows as its table `given`, many at a time; return the rows that it selects."""
    rest, selected = iter(rows), []
    while batch := list(islice(rest, _MAX_ROWS)):
        count, width = 1 << (len(batch) - 1).bit_length(), len(batch[0])
        arguments = [*chain.from_iterable(batch), *[None] * (width * (count - len(batch)))]
        selected += cursor.execute(_over_given(statement, width, count), arguments).fetchall()
    return selected


@lru_cache(maxsize=100)
def _over_given(statement: str, width: int, count: int) -> str:
    # Rows are padded with NULL to a power of two, so that few different statements have to be prepared.
    row = f"({', '.join('?' * width)})"
    return f"WITH given AS (VALUES {', '.join([row] * count)}) {statement}"
