"""The read model on SQLite: a file of its own beside the events."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Final

from projector.database.sqlite import (
    ROW_ERRORS,
    SQLiteConnection,
    create_private_file,
    create_statement,
    errors_as,
    rfc3339,
    switch_to_wal,
)
from projector.read_model import NoReadModel, ReadModelUnavailable, views
from projector.read_model.query_session import QuerySession
from projector.read_model.schema import PROJECTION_TABLES, SCHEMA_VERSION, SQLITE_INDEXES, TABLES
from projector.read_model.sqlite_link import LinkedFile
from projector.read_model.unit_of_work import ReadTransaction, UnitOfWork, commit_or_roll_back
from projector.read_model.worker_lock import WorkerLock

_PRAGMAS: Final = ("synchronous=NORMAL", "cache_size=-16000", "wal_autocheckpoint=4000")
_DRAFT_PRAGMAS: Final = ("journal_mode=MEMORY", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-8000")

unavailable: Final = errors_as(ReadModelUnavailable, but=ROW_ERRORS)
"""Raises ReadModelUnavailable in place of SQLite's errors, except those that a row caused."""


class SQLiteReadModel:
    """`ReadModel` in the file at `path`, or in the file that a link there names at the time."""

    def __init__(self, path: str, *, timeout_s: float = 1, pragmas: Sequence[str] = _PRAGMAS) -> None:
        self._file = LinkedFile(path, pragmas, timeout_s=timeout_s)
        self._worker_lock = WorkerLock(path)

    @contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        with unavailable, commit_or_roll_back(self._begin("BEGIN IMMEDIATE")) as connection:
            yield UnitOfWork(connection, unavailable)

    def try_lead(self) -> bool:
        self._worker_lock.hold()
        return True

    def step_down(self) -> None:
        pass  # every process may project, each in its own transactions

    @contextmanager
    def read_transaction(self) -> Iterator[ReadTransaction]:
        with unavailable, commit_or_roll_back(self._begin("BEGIN")) as connection:
            yield ReadTransaction(connection)

    def close(self) -> None:
        self._worker_lock.release()
        self._file.close()

    def _begin(self, statement: str) -> SQLiteConnection:
        return SQLiteConnection(self._file.begin(statement))


class SQLiteDraft(SQLiteReadModel):
    """`DraftReadModel` in a file that has no indexes, and is not durable, before it is finished."""

    def __init__(self, path: str) -> None:
        super().__init__(path, pragmas=_DRAFT_PRAGMAS)
        self._path = path

    @classmethod
    def create(cls, path: str, versions: Mapping[str, int], forgotten_through: int) -> SQLiteDraft:
        """Create the file for projections of these versions. Raises ReadModelUnavailable."""
        with unavailable:
            _create(path, versions, forgotten_through)
        return cls(path)

    def append(self, shard: str) -> None:
        with unavailable:
            connection = self._file.connection()
            connection.execute("ATTACH ? AS shard", (shard,))
            connection.execute("BEGIN")
            for table in (table.name for tables in PROJECTION_TABLES.values() for table in tables):
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM shard.{table}")
            connection.execute("COMMIT")
            connection.execute("DETACH shard")

    def finish(self) -> None:
        with unavailable:
            for index in SQLITE_INDEXES:
                self._file.connection().execute(index.statement)
            self.close()
            switch_to_wal(self._path)


class SQLiteQueries:
    """`Queries` for one thread, of the file at `path` or the one that a link there names at the time."""

    def __init__(self, path: str) -> None:
        self._file = LinkedFile(path, _PRAGMAS)

    @contextmanager
    def session(self) -> Iterator[QuerySession]:
        with unavailable, commit_or_roll_back(SQLiteConnection(self._file.begin("BEGIN"))) as connection:
            yield QuerySession(connection)

    def version(self) -> tuple[tuple[int, int], int] | None:
        try:
            return self._file.version()
        except (NoReadModel, sqlite3.Error):
            return None

    def close(self) -> None:
        self._file.close()


def has_connections(path: str) -> bool:
    """Tell whether a process is connected to a file, which is not known of a file that is no database."""
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            # A file leaves the WAL mode only if nobody else is connected to it.
            mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
            return bool(mode != "delete")
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False


def _create(path: str, versions: Mapping[str, int], forgotten_through: int) -> None:
    create_private_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            connection.execute(create_statement(table))
        for statement in views.statements(rfc3339, create="CREATE VIEW"):
            connection.execute(statement)
        connection.executemany("INSERT INTO checkpoints VALUES (?, ?, 0)", versions.items())
        connection.execute("INSERT INTO forgotten_through VALUES (1, ?)", (forgotten_through,))
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
