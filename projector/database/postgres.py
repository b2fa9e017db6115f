"""PostgreSQL: errors in one line, text with NUL characters, and `Connection` over psycopg."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from projector.database import Column, Table
from projector.database.errors import ErrorsAs

_STREAM_BATCH_SIZE: Final = 2_000
_TYPES: Final = {"text": 'text COLLATE "C"', "integer": "bigint", "bytes": "bytea"}
_ARRAYS: Final = {"text": "text[]", "integer": "bigint[]", "bytes": "bytea[]"}
_SQLITE_ONLY: Final = re.compile(r" INDEXED BY \w+| CROSS(?= JOIN)")
_ESCAPED: Final = re.compile("[\x00\x01]")
_ESCAPES: Final = re.compile("\x01[\x01\x02]")
ROW_ERRORS: Final = (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.ProgramLimitExceeded)
"""Errors that the row caused, not the statement or the state of the database; the last: too large for an index."""


def errors_as(
    error_type: type[Exception], *, but: tuple[type[Exception], ...] = (), also: tuple[type[Exception], ...] = ()
) -> ErrorsAs:
    """Raise `error_type`, its text in one line, in place of PostgreSQL's errors and `also`; errors in `but` stay."""
    return ErrorsAs(error_type, (psycopg.Error, *also), but=but, prefix="PostgreSQL")


def escape_nul(value: Any) -> Any:
    """Return text without NUL, which PostgreSQL refuses, and anything else unchanged; order and prefixes stay."""
    return _ESCAPED.sub(_escape, value) if type(value) is str and ("\x00" in value or "\x01" in value) else value


def unescape_nul(value: Any) -> Any:
    """Undo `escape_nul`."""
    return _ESCAPES.sub(_unescape, value) if type(value) is str and "\x01" in value else value


class PostgresConnection:
    """`Connection` on PostgreSQL."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._numbers = count()

    @property
    def in_transaction(self) -> bool:
        return self._connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def execute(self, statement: str, arguments: Sequence[Any] = ()) -> _Result:
        # Connections of the event-sourcing library give rows as dictionaries, unless asked otherwise.
        cursor = self._connection.cursor(row_factory=tuple_row)
        return _Result(cursor.execute(_to_postgres(statement), list(map(escape_nul, arguments))))

    def stream(self, query: str, arguments: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with self._connection.cursor(f"stream{next(self._numbers)}") as cursor:
            cursor.itersize = _STREAM_BATCH_SIZE
            cursor.execute(_to_postgres(query), list(map(escape_nul, arguments)))
            yield from map(_unescaped, cursor)

    def bounded(
        self, query: str, arguments: Sequence[Any] = (), *, order: str, text: str, max_bytes: int
    ) -> Iterator[tuple[Any, ...]]:
        size = f"OCTET_LENGTH({text})"
        sized = f"SELECT *, SUM({size}) OVER (ORDER BY {order}) - {size} AS size_before FROM ({query}) AS rows"
        bounded = f"SELECT * FROM ({sized}) AS sized WHERE size_before <= ? ORDER BY {order}"
        return (row[:-1] for row in self.execute(bounded, (*arguments, max_bytes)))

    def find(self, columns: str, table: Table, keys: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        # All keys go in one round trip.
        if arguments := _arrays(keys):
            yield from map(_unescaped, self._connection.execute(_find(columns, table), arguments))

    def find_newest(self, columns: str, table: Table, keys: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        if arguments := _arrays(keys):
            yield from map(_unescaped, self._connection.execute(_find_newest(columns, table), arguments))

    def has_table(self, name: str) -> bool:
        (found,) = self.execute("SELECT to_regclass(?)", (name,)).fetchone()
        return found is not None

    def upsert(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        # A statement may not replace a row twice: of equal keys, the last row counts.
        by_key = {tuple(row[: table.width]): row for row in rows}
        if by_key:
            self._connection.execute(_upsert(table), _arrays(by_key.values()))

    def delete(self, table: Table, keys: Iterable[Sequence[Any]]) -> None:
        if arguments := _arrays(keys):
            self._connection.execute(_delete(table), arguments)


class BulkConnection(PostgresConnection):
    """`Connection` for rows that are usually all new: they are copied in, and upserted only if that fails."""

    def upsert(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        escaped = [tuple(map(escape_nul, row)) for row in rows]
        try:
            with (
                self._connection.transaction(),
                self._connection.cursor().copy(f"COPY {table.name} FROM STDIN") as copy,
            ):
                for row in escaped:
                    copy.write_row(row)
        except psycopg.errors.UniqueViolation:
            super().upsert(table, escaped)


class _Result:
    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def __iter__(self) -> Iterator[Any]:
        return map(_unescaped, self._cursor)

    def fetchone(self) -> Any:
        row = self._cursor.fetchone()
        return None if row is None else _unescaped(row)


def rfc3339(column: str) -> str:
    """Return an expression for the time, as RFC 3339 with milliseconds, in a column of ms since 1970 UTC."""
    utc = f"to_timestamp({column} / 1000.0) AT TIME ZONE 'UTC'"
    return f"""to_char({utc}, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""


def create_statement(table: Table, *, if_missing: bool = False) -> str:
    """Return the statement that creates a table."""
    columns = [
        f"{column.name} {_TYPES[column.type]}{' NOT NULL' * column.required}"
        f"{' GENERATED ALWAYS AS IDENTITY' * (table.numbered and place == 0)}{' UNIQUE' * column.unique}"
        for place, column in enumerate(table.columns)
    ]
    columns.append(f"PRIMARY KEY ({', '.join(table.key)})")
    return f"CREATE TABLE {'IF NOT EXISTS ' * if_missing}{table.name} ({', '.join(columns)})"


def _escape(match: re.Match[str]) -> str:
    return "\x01" + chr(ord(match[0]) + 1)


def _unescape(match: re.Match[str]) -> str:
    return chr(ord(match[0][1]) - 1)


def _unescaped(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(unescape_nul, row))


def _arrays(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return rows as one array for each column."""
    return [[escape_nul(value) for value in column] for column in zip(*rows, strict=True)]


@lru_cache(maxsize=1_000)
def _to_postgres(statement: str) -> str:
    """Return a statement with PostgreSQL's placeholders and without SQLite's index hints."""
    return _SQLITE_ONLY.sub("", statement).replace("?", "%s")


@lru_cache(maxsize=100)
def _find(columns: str, table: Table) -> str:
    return f"SELECT {columns} FROM {table.name} WHERE {_is_one_of(table)}"


@lru_cache(maxsize=100)
def _find_newest(columns: str, table: Table) -> str:
    *key, last = table.key
    wanted = ", ".join(f"wanted_{name}" for name in key)
    is_wanted = " AND ".join(f"{name} = wanted_{name}" for name in key)
    return (
        f"SELECT newest.* FROM unnest({_unnested(table.columns[: len(key)])}) AS wanted ({wanted}) CROSS JOIN LATERAL"
        f" (SELECT {columns} FROM {table.name} WHERE {is_wanted} ORDER BY {last} DESC LIMIT 1) AS newest"
    )


@lru_cache(maxsize=100)
def _upsert(table: Table) -> str:
    others = ", ".join(f"{column.name} = excluded.{column.name}" for column in table.columns[table.width :])
    action = f"UPDATE SET {others}" if others else "NOTHING"
    arrays = _unnested(table.columns)
    return f"INSERT INTO {table.name} SELECT * FROM unnest({arrays}) ON CONFLICT ({', '.join(table.key)}) DO {action}"


@lru_cache(maxsize=100)
def _delete(table: Table) -> str:
    return f"DELETE FROM {table.name} WHERE {_is_one_of(table)}"


def _is_one_of(table: Table) -> str:
    return f"({', '.join(table.key)}) IN (SELECT * FROM unnest({_unnested(table.columns[: table.width])}))"


def _unnested(columns: Sequence[Column]) -> str:
    return ", ".join(f"%b::{_ARRAYS[column.type]}" for column in columns)
