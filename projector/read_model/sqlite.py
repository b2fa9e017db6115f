"""The read model on SQLite: a file of its own beside the events, disposable, never synced before it need be."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from projector.database.sqlite import ROW_ERRORS, SQLiteConnection, create_statement, errors_as, switch_to_wal
from projector.read_model import NoReadModel, ReadModelUnavailable
from projector.read_model.query_session import QuerySession
from projector.read_model.schema import INDEXES, OWNED, SCHEMA_VERSION, TABLES
from projector.read_model.sqlite_link import LinkedFile
from projector.read_model.unit_of_work import ReadTransaction, UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


unavailable: Final = partial(errors_as, ReadModelUnavailable, but=ROW_ERRORS)
"""Raise ReadModelUnavailable in place of SQLite's errors; errors that a row caused stay."""


class SQLiteReadModel:
    """`ReadModel` in the file at `path`, or in the one that a link there names at the time."""

    def __init__(self, path: str, *, timeout_s: float = 1) -> None:
        self._file = LinkedFile(path, SCHEMA_VERSION, timeout_s)

    @contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        with unavailable(), self._begun("BEGIN IMMEDIATE") as connection:
            yield UnitOfWork(SQLiteConnection(connection), unavailable)

    def try_lead(self) -> bool:
        return True

    def step_down(self) -> None:
        pass  # every process may project, each in its own transaction

    @contextmanager
    def read_transaction(self) -> Iterator[ReadTransaction]:
        with unavailable(), self._begun("BEGIN") as connection:
            yield ReadTransaction(SQLiteConnection(connection))

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
    def session(self) -> Iterator[QuerySession]:
        with unavailable():
            connection = self._file.begin("BEGIN")
            try:
                yield QuerySession(SQLiteConnection(connection))
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


_TABLES: Final = tuple(map(create_statement, TABLES))
_INDEXES: Final = tuple(index.statement for index in INDEXES)
