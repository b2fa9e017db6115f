"""SQLite files that several processes may open, and create, at the same moment."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeVar

from projector.database import Table
from projector.database.errors import ErrorsAs

LOCK_TIMEOUT_S: Final = 5
_RETRY_S: Final = 0.01
_MAX_KEYS: Final = 128
_TYPES: Final = {"text": "TEXT", "integer": "INTEGER", "bytes": "BLOB"}
ROW_ERRORS: Final = (sqlite3.IntegrityError, sqlite3.DataError)
"""Errors that the row caused, not the statement or the state of the database."""

_Item = TypeVar("_Item")


def errors_as(
    error_type: type[Exception],
    *,
    but: tuple[type[Exception], ...] = (),
    also: tuple[type[Exception], ...] = (),
    name: str = "SQLite",
) -> ErrorsAs:
    """Raise `error_type` in place of SQLite's errors and `also`; errors in `but` stay. `name` begins the text."""
    return ErrorsAs(error_type, (sqlite3.Error, *also), but=but, prefix=name)


def create_private_file(path: str) -> None:
    """Create an empty file that only its owner can read, unless the file exists. Raises sqlite3.OperationalError.

    SQLite gives the files beside it the same mode.
    """
    if not Path(path).exists():
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise sqlite3.OperationalError(f"{path}: {error.strerror}") from error


def switch_to_wal(path: str) -> None:
    """Create the file if it is missing, and put it into WAL mode for good. Raises sqlite3.Error.

    SQLite itself does not wait for locks while it switches.
    """
    create_private_file(path)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return
        finally:
            connection.close()


class SQLiteConnection:
    """`Connection` on SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.stream = connection.execute

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def bounded(
        self,
        query: str,
        arguments: Sequence[Any] = (),
        *,
        order: str,  # noqa: ARG002 - rows are read one by one, so that nothing needs to be bounded
        text: str,  # noqa: ARG002
        max_bytes: int,  # noqa: ARG002
    ) -> Iterator[tuple[Any, ...]]:
        return self.execute(query, arguments)

    def find(self, columns: str, table: Table, keys: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        # Keys are padded with NULL to a power of two, so that few different statements have to be prepared.
        for batch in _batches(keys, _MAX_KEYS):
            count = 1 << (len(batch) - 1).bit_length()
            arguments = [*chain.from_iterable(batch), *[None] * (table.width * (count - len(batch)))]
            yield from self.execute(_find(columns, table, count), arguments).fetchall()

    def find_newest(self, columns: str, table: Table, keys: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        width = table.width - 1
        for batch in _batches(keys, _MAX_KEYS):
            count = 1 << (len(batch) - 1).bit_length()
            arguments = [*chain.from_iterable(batch), *[None] * (width * (count - len(batch)))]
            yield from self.execute(_find_newest(columns, table, count), arguments).fetchall()

    def has_table(self, name: str) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return self.execute(query, (name,)).fetchone() is not None

    def upsert(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        self.write(_upsert(table), rows)

    def delete(self, table: Table, keys: Iterable[Sequence[Any]]) -> None:
        self.write(_delete(table), keys)

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement with each of these rows."""
        self._connection.executemany(statement, rows)


def rfc3339(column: str) -> str:
    """Return an expression for the time, as RFC 3339 with milliseconds, in a column of ms since 1970 UTC."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000.0, 'unixepoch')"


def empty_log(connection: SQLiteConnection) -> bool:
    """Move the write-ahead log into the file and truncate it; return False if a reader or writer prevents that."""
    (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def create_statement(table: Table, *, if_missing: bool = False) -> str:
    """Return the statement that creates a table, without rowids unless it is numbered."""
    columns = [
        f"{column.name} {_TYPES[column.type]}{' NOT NULL' * (column.required and place >= table.width)}"
        f"{' PRIMARY KEY' * (table.numbered and place == 0)}{' UNIQUE' * column.unique}"
        for place, column in enumerate(table.columns)
    ]
    start = f"CREATE TABLE {'IF NOT EXISTS ' * if_missing}{table.name} ({', '.join(columns)}"
    return f"{start})" if table.numbered else f"{start}, PRIMARY KEY ({', '.join(table.key)})) WITHOUT ROWID"


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


@lru_cache(maxsize=100)
def _find(columns: str, table: Table, count: int) -> str:
    return (
        f"{_wanted(table.key, count)} SELECT {columns} FROM wanted CROSS JOIN {table.name} ON {_is_wanted(table.key)}"
    )


@lru_cache(maxsize=100)
def _find_newest(columns: str, table: Table, count: int) -> str:
    *key, last = table.key
    newest = f"SELECT MAX({last}) FROM {table.name} AS newest WHERE {_is_wanted(key, 'newest.')}"
    return (
        f"{_wanted(key, count)} SELECT {columns} FROM wanted CROSS JOIN {table.name}"
        f" ON {_is_wanted(key)} AND {last} = ({newest})"
    )


def _wanted(key: Sequence[str], count: int) -> str:
    rows = ", ".join([f"({', '.join('?' * len(key))})"] * count)
    return f"WITH wanted ({', '.join(f'wanted_{name}' for name in key)}) AS (VALUES {rows})"


def _is_wanted(key: Sequence[str], table: str = "") -> str:
    return " AND ".join(f"{table}{name} = wanted_{name}" for name in key)


@lru_cache(maxsize=100)
def _upsert(table: Table) -> str:
    # Only the indexes of columns that change are written.
    others = ", ".join(f"{column.name} = excluded.{column.name}" for column in table.columns[table.width :])
    action = f"UPDATE SET {others}" if others else "NOTHING"
    values = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} VALUES ({values}) ON CONFLICT ({', '.join(table.key)}) DO {action}"


@lru_cache(maxsize=100)
def _delete(table: Table) -> str:
    return f"DELETE FROM {table.name} WHERE {' AND '.join(f'{name} = ?' for name in table.key)}"
