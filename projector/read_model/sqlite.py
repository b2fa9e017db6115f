"""The read model on SQLite: a file of its own beside the events, disposable, never synced before it need be."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from projector.database.sqlite import switch_to_wal
from projector.read_model import NoReadModel, ReadModelUnavailable
from projector.read_model.schema import INDEXES, OWNED, SCHEMA_VERSION, TABLES, Table
from projector.read_model.sql import SQLReadTransaction, SQLUnitOfWork
from projector.read_model.sql_queries import SQLQuerySession
from projector.read_model.sqlite_link import LinkedFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

_TYPES: Final = {"text": "TEXT", "integer": "INTEGER", "bytes": "BLOB"}
_KEYS_AT_ONCE: Final = 128

_Item = TypeVar("_Item")


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn what the database cannot help into ReadModelUnavailable; what a row caused stays what it is."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        raise ReadModelUnavailable(f"SQLite: {error}") from error


class SQLiteConnection:
    """`Connection` on SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.stream = connection.execute

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def find(self, columns: str, table: str, keys: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        # As many keys at a time as a power of two, so that there are few statements to prepare; what is left is NULL.
        key = TABLES[table].key
        for some in _chunks(keys, _KEYS_AT_ONCE):
            count = 1 << (len(some) - 1).bit_length()
            given = [*chain.from_iterable(some), *[None] * (len(key) * (count - len(some)))]
            yield from self.execute(_find(columns, table, count), given).fetchall()

    def upsert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(_UPSERTS[table], rows)

    def errors(self) -> AbstractContextManager[None]:
        return unavailable()


class SQLiteReadModel:
    """`ReadModel` in the file at `path`, or in the one that a link there names at the time."""

    def __init__(self, path: str, *, timeout_s: float = 1) -> None:
        self._file = LinkedFile(path, SCHEMA_VERSION, timeout_s)

    @contextmanager
    def transaction(self) -> Iterator[SQLUnitOfWork]:
        with unavailable(), self._begun("BEGIN IMMEDIATE") as connection:
            yield SQLUnitOfWork(SQLiteConnection(connection))

    def try_lead(self) -> bool:
        return True

    def step_down(self) -> None:
        pass  # every process may project, each in its own transaction

    @contextmanager
    def read_transaction(self) -> Iterator[SQLReadTransaction]:
        with unavailable(), self._begun("BEGIN") as connection:
            yield SQLReadTransaction(SQLiteConnection(connection))

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def _begun(self, begin: str) -> Iterator[sqlite3.Connection]:
        connection = self._file.begin(begin)
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


class SQLiteDraft(SQLiteReadModel):
    """`DraftReadModel` in a new file, nothing of which is believed before it is finished.

    `afresh` are the projections to build, and their versions; the others are copied from another file, if given.
    """

    def __init__(self, path: str, afresh: Mapping[str, int], copied: str | None = None) -> None:
        self._path = path
        if copied is None:
            _create(path, afresh, _TABLES)
        else:
            _copy(copied, path, afresh)
        super().__init__(path)
        with unavailable():
            for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-8000"):
                self._file.connection().execute(f"PRAGMA {pragma}").fetchone()

    def append(self, part: str, projections: Iterable[str]) -> None:
        connection = self._file.connection()
        with unavailable():
            connection.execute("ATTACH ? AS part", (part,))
            connection.execute("BEGIN")
            for table in (table.name for projection in projections for table in OWNED[projection]):
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM part.{table}")
            connection.execute("COMMIT")
            connection.execute("DETACH part")

    def finish(self) -> None:
        with unavailable():
            for statement in _INDEXES:
                self._file.connection().execute(statement)
            self.close()
            switch_to_wal(self._path)


def create(path: str, versions: Mapping[str, int]) -> None:
    """Create an empty read model, each of these projections at 0. Raises ReadModelUnavailable."""
    _create(path, versions, (*_TABLES, *_INDEXES))
    with unavailable():
        switch_to_wal(path)


def _create(path: str, versions: Mapping[str, int], schema: Iterable[str]) -> None:
    with unavailable(), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in schema:
            connection.execute(statement)
        connection.executemany("INSERT INTO checkpoints VALUES (?, ?, 0)", versions.items())
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")


def _copy(source: str, path: str, afresh: Mapping[str, int]) -> None:
    with unavailable(), closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(path)) as connection:
        live.backup(connection)
        with connection:
            for table in (table.name for projection in afresh for table in OWNED[projection]):
                connection.execute(f"DELETE FROM {table}")
            connection.executemany("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, 0)", afresh.items())
            connection.executemany("DELETE FROM set_aside WHERE projection = ?", [(name,) for name in afresh])
        connection.execute("PRAGMA journal_mode=DELETE")


class SQLiteQueries:
    """`Queries` over one connection, for one thread, to the file at `path` or the one that a link there names."""

    def __init__(self, path: str) -> None:
        self._file = LinkedFile(path, SCHEMA_VERSION)

    @contextmanager
    def session(self) -> Iterator[SQLQuerySession]:
        with unavailable():
            connection = self._file.begin("BEGIN")
            try:
                yield SQLQuerySession(SQLiteConnection(connection))
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")

    def version(self) -> tuple[str, int] | None:
        try:
            return self._file.version()
        except (NoReadModel, sqlite3.Error):
            return None

    def close(self) -> None:
        self._file.close()


def _table(table: Table) -> str:
    columns = ", ".join(
        f"{column.name} {_TYPES[column.type]}{' NOT NULL' * (column.required and place >= table.width)}"
        for place, column in enumerate(table.columns)
    )
    return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(table.key)})) WITHOUT ROWID"


_TABLES: Final = tuple(map(_table, TABLES.values()))
_INDEXES: Final = tuple(index.statement for index in INDEXES)


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


@lru_cache(maxsize=100)
def _find(columns: str, table: str, count: int) -> str:
    key = TABLES[table].key
    wanted = ", ".join([f"({', '.join('?' * len(key))})"] * count)
    names = ", ".join(f"wanted_{name}" for name in key)
    same = " AND ".join(f"{name} = wanted_{name}" for name in key)
    return f"WITH wanted ({names}) AS (VALUES {wanted}) SELECT {columns} FROM wanted CROSS JOIN {table} ON {same}"


_UPSERTS: Final = {
    table.name: f"INSERT OR REPLACE INTO {table.name} VALUES ({', '.join('?' * len(table.columns))})"
    for table in TABLES.values()
}
