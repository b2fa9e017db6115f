"""The read model on PostgreSQL: each build of it in a schema of its own, and a table that says which is live."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from projector.database.postgres import connect, decoded, encoded, one_line
from projector.read_model import NoReadModel, ReadModelUnavailable
from projector.read_model.schema import INDEXES, SCHEMA_VERSION, TABLES, Table
from projector.read_model.sql import SQLReadTransaction, SQLUnitOfWork
from projector.read_model.sql_queries import SQLQuerySession

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

LIVE: Final = "live"
WRITING_LOCK: Final = 0x70726F77
"""With a generation's number, the advisory lock of whoever writes it, for as long as the transaction is open."""

LEADING_LOCK: Final = 0x70726F6C
"""The advisory lock of whoever projects, for as long as the connection stands."""

_TRIES: Final = 10
_STREAMED: Final = 2_000
_TYPES: Final = {"text": 'text COLLATE "C"', "integer": "bigint", "bytes": "bytea"}
_ARRAYS: Final = {"text": "text[]", "integer": "bigint[]", "bytes": "bytea[]"}
_ONLY_SQLITE: Final = re.compile(r" INDEXED BY \w+| CROSS(?= JOIN)")

_LIVE: Final = (
    "SELECT set_config('search_path', 'read_model_' || generation, true), generation, schema_version"
    " FROM public.read_models WHERE name = %s"
)


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn what the database cannot help into ReadModelUnavailable; what a row caused stays what it is."""
    try:
        yield
    except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError):
        raise
    except psycopg.Error as error:
        raise ReadModelUnavailable(one_line(error)) from error


class PostgresConnection:
    """`Connection` on PostgreSQL."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._names = count()

    @property
    def in_transaction(self) -> bool:
        return self._connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def execute(self, statement: str, arguments: Sequence[Any] = ()) -> _Answer:
        return _Answer(self._connection.execute(_to_postgres(statement), [encoded(one) for one in arguments]))

    def stream(self, question: str, arguments: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        with self._connection.cursor(f"stream{next(self._names)}") as cursor:
            cursor.itersize = _STREAMED
            cursor.execute(_to_postgres(question), [encoded(one) for one in arguments])
            yield from map(_row, cursor)

    def find(self, columns: str, table: str, keys: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        """All keys go in one round trip."""
        if given := _columns(keys):
            question = f"SELECT {columns} FROM {table} WHERE {_KEYS[table]}"
            yield from map(_row, self._connection.execute(question, given))

    def upsert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """PostgreSQL replaces no row twice in one statement: of equal keys the last row counts."""
        width = TABLES[table].width
        given = {tuple(row[:width]): row for row in rows}
        if given:
            self._connection.execute(_UPSERTS[table], _columns(given.values()))

    def errors(self) -> AbstractContextManager[None]:
        return unavailable()


class LoadingConnection(PostgresConnection):
    """`Connection` whose rows are, as a rule, all new: they are copied in, and only looked up if they are not."""

    def upsert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        given = [tuple(map(encoded, row)) for row in rows]
        try:
            with self._connection.transaction(), self._connection.cursor().copy(f"COPY {table} FROM STDIN") as copied:
                for row in given:
                    copied.write_row(row)
        except psycopg.errors.UniqueViolation:
            super().upsert(table, given)


class _Answer:
    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def __iter__(self) -> Iterator[Any]:
        return map(_row, self._cursor)

    def fetchone(self) -> Any:
        found = self._cursor.fetchone()
        return None if found is None else _row(found)


class GenerationConnection:
    """One connection, for one thread at a time, to a generation by its number, or to the live one of the moment."""

    def __init__(self, url: str, number: int | None = None, timeout_s: float = 1) -> None:
        self._url = url
        self._number = number
        self._timeout_s = timeout_s
        self._connection: psycopg.Connection[Any] | None = None

    def connection(self) -> psycopg.Connection[Any]:
        """Return the connection, a new one if the last broke. Raises psycopg.Error."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url)
            self._connection.execute(f"SET lock_timeout = {int(self._timeout_s * 1000)}")
        return self._connection

    def begin(self, statement: str) -> tuple[psycopg.Connection[Any], int]:
        """Begin a transaction that sees the generation's tables; return its number too. Raises NoReadModel."""
        connection = self.connection()
        connection.execute(statement)
        try:
            if self._number is None:
                return connection, self._live(connection)
            connection.execute("SELECT set_config('search_path', %s, true)", (f"read_model_{self._number}",))
        except BaseException:
            rolled_back(connection)
            raise
        return connection, self._number

    @contextmanager
    def moment(self) -> Iterator[PostgresConnection]:
        """Open one moment for reading. Raises ReadModelUnavailable."""
        with unavailable(), _ended(self.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")[0]) as connection:
            yield PostgresConnection(connection)

    def is_live(self, number: int) -> bool:
        """Tell whether the generation in which a transaction was begun is still the one to be written."""
        return self._number is not None or self._live(self.connection()) == number

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _live(connection: psycopg.Connection[Any]) -> int:
        try:
            found = connection.execute(_LIVE, (LIVE,)).fetchone()
        except psycopg.errors.UndefinedTable:
            found = None
        if found is None:
            raise NoReadModel("there is no read model yet; `projector replay` builds it")
        if found[2] != SCHEMA_VERSION:
            raise NoReadModel("the read model has the schema of another version; `projector replay` builds it")
        return int(found[1])


class PostgresReadModel:
    """`ReadModel` in a generation, by its number, or in the live one."""

    _speaks: type[PostgresConnection] = PostgresConnection

    def __init__(self, url: str, number: int | None = None, *, timeout_s: float = 1) -> None:
        self._generation = GenerationConnection(url, number, timeout_s)
        self._leading: psycopg.Connection[Any] | None = None

    @contextmanager
    def transaction(self) -> Iterator[SQLUnitOfWork]:
        with unavailable(), _ended(self._begun_alone()) as connection:
            yield SQLUnitOfWork(self._speaks(connection))

    def try_lead(self) -> bool:
        # The lock belongs to the connection that also writes: losing one loses the other.
        with unavailable():
            connection = self._generation.connection()
            if self._leading is not connection:
                ((is_ours,),) = connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADING_LOCK,)).fetchall()
                self._leading = connection if is_ours else None
        return self._leading is not None

    def step_down(self) -> None:
        if self._leading is not None:
            with unavailable():
                self._leading.execute("SELECT pg_advisory_unlock(%s)", (LEADING_LOCK,))
            self._leading = None

    @contextmanager
    def read_transaction(self) -> Iterator[SQLReadTransaction]:
        with self._generation.moment() as connection:
            yield SQLReadTransaction(connection)

    def close(self) -> None:
        self._generation.close()

    def _begun_alone(self) -> psycopg.Connection[Any]:
        """Begin a transaction in which nobody else writes, or swaps."""
        for _ in range(_TRIES):
            connection, number = self._generation.begin("BEGIN")
            try:
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (WRITING_LOCK, number))
                if self._generation.is_live(number):
                    return connection
            except BaseException:
                rolled_back(connection)
                raise
            connection.execute("ROLLBACK")
        raise ReadModelUnavailable("the read model is replaced faster than it can be opened")


class PostgresDraft(PostgresReadModel):
    """`DraftReadModel` in a new schema, nothing of which is believed before it is finished.

    `afresh` are the projections to build, and their versions; the others are copied from another, if given.
    """

    _speaks = LoadingConnection

    def __init__(self, url: str, number: int) -> None:
        super().__init__(url, number)
        with unavailable():
            for setting in ("synchronous_commit = off", "statement_timeout = 0"):
                self._generation.connection().execute(f"SET {setting}")

    def _begun_alone(self) -> psycopg.Connection[Any]:
        """Begin a transaction; others that build other parts write at the same time."""
        return self._generation.begin("BEGIN")[0]

    def append(self, part: str, projections: Iterable[str]) -> None:
        """On PostgreSQL all parts go into the same tables, so there is nothing to add."""

    def finish(self) -> None:
        with unavailable(), _ended(self._generation.begin("BEGIN")[0]) as connection:
            for index in INDEXES:
                connection.execute(index.statement)
            for table in TABLES:
                connection.execute(f"ANALYZE {table}")
        self.close()


class PostgresQueries:
    """`Queries` to the live generation, for any thread: as many connections as there are questions at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: SimpleQueue[GenerationConnection] = SimpleQueue()

    @contextmanager
    def session(self) -> Iterator[SQLQuerySession]:
        try:
            generation = self._idle.get_nowait()
        except Empty:
            generation = GenerationConnection(self._url)
        try:
            with generation.moment() as connection:
                yield SQLQuerySession(connection)
        finally:
            self._idle.put(generation)

    def version(self) -> None:
        """To ask the server would take as long as an answer."""

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get_nowait().close()


def create(connection: psycopg.Connection[Any], number: int, versions: Mapping[str, int]) -> None:
    """Create a generation's tables, without indexes, each of these projections at 0. Raises psycopg.Error."""
    with connection.transaction():
        connection.execute(f"CREATE SCHEMA read_model_{number}")
        connection.execute("SELECT set_config('search_path', %s, true)", (f"read_model_{number}",))
        for table in TABLES.values():
            connection.execute(_table(table))
        PostgresConnection(connection).upsert("checkpoints", [(*version, 0) for version in versions.items()])


def rolled_back(connection: psycopg.Connection[Any]) -> None:
    """End a transaction that is not to be, if the connection still stands."""
    if not connection.closed:
        connection.execute("ROLLBACK")


@contextmanager
def _ended(connection: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if PostgresConnection(connection).in_transaction:
            rolled_back(connection)
        raise


def _row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(decoded, row))


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return rows as arrays, one for each column."""
    return [[encoded(value) for value in column] for column in zip(*rows, strict=True)]


@lru_cache(maxsize=1_000)
def _to_postgres(statement: str) -> str:
    """Return a statement as PostgreSQL takes it: arguments are marked otherwise, and it chooses indexes by itself."""
    return _ONLY_SQLITE.sub("", statement).replace("?", "%s")


def _table(table: Table) -> str:
    columns = ", ".join(
        f"{column.name} {_TYPES[column.type]}{' NOT NULL' * column.required}" for column in table.columns
    )
    return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(table.key)}))"


def _upsert(table: Table) -> str:
    given = ", ".join(f"%b::{_ARRAYS[column.type]}" for column in table.columns)
    others = ", ".join(f"{column.name} = excluded.{column.name}" for column in table.columns[table.width :])
    then = f"UPDATE SET {others}" if others else "NOTHING"
    key = ", ".join(table.key)
    return f"INSERT INTO {table.name} SELECT * FROM unnest({given}) ON CONFLICT ({key}) DO {then}"


def _keys(table: Table) -> str:
    given = ", ".join(f"%b::{_ARRAYS[column.type]}" for column in table.columns[: table.width])
    keys = ", ".join(table.key)
    return f"({keys}) IN (SELECT * FROM unnest({given}))"


_KEYS: Final = {table.name: _keys(table) for table in TABLES.values()}
_UPSERTS: Final = {table.name: _upsert(table) for table in TABLES.values()}
