"""The read model on PostgreSQL: each build of it in a schema of its own, and a table that says which is live."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import psycopg

from projector.database.postgres import (
    ROW_ERRORS,
    BulkConnection,
    PostgresConnection,
    connect,
    create_statement,
    errors_as,
)
from projector.read_model import NoReadModel, ReadModelUnavailable
from projector.read_model.query_session import QuerySession
from projector.read_model.schema import CHECKPOINTS, INDEXES, SCHEMA_VERSION, TABLES
from projector.read_model.unit_of_work import ReadTransaction, UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LIVE: Final = "live"
WRITING_LOCK: Final = 0x70726F77
"""With a generation's number, the advisory lock of whoever writes it, for as long as the transaction is open."""

LEADING_LOCK: Final = 0x70726F6C
"""The advisory lock of whoever projects, for as long as the connection stands."""

_TRIES: Final = 10

_LIVE: Final = (
    "SELECT set_config('search_path', 'read_model_' || generation, true), generation, schema_version"
    " FROM public.read_models WHERE name = %s"
)


unavailable: Final = partial(errors_as, ReadModelUnavailable, but=ROW_ERRORS)
"""Raise ReadModelUnavailable in place of PostgreSQL's errors; errors that a row caused stay."""


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
    def transaction(self) -> Iterator[UnitOfWork]:
        with unavailable(), _ended(self._begun_alone()) as connection:
            yield UnitOfWork(self._speaks(connection), unavailable)

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
    def read_transaction(self) -> Iterator[ReadTransaction]:
        with self._generation.moment() as connection:
            yield ReadTransaction(connection)

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

    _speaks = BulkConnection

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
                connection.execute(f"ANALYZE {table.name}")
        self.close()


class PostgresQueries:
    """`Queries` to the live generation, for any thread: as many connections as there are questions at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: SimpleQueue[GenerationConnection] = SimpleQueue()

    @contextmanager
    def session(self) -> Iterator[QuerySession]:
        try:
            generation = self._idle.get_nowait()
        except Empty:
            generation = GenerationConnection(self._url)
        try:
            with generation.moment() as connection:
                yield QuerySession(connection)
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
        for table in TABLES:
            connection.execute(create_statement(table))
        PostgresConnection(connection).upsert(CHECKPOINTS, [(*version, 0) for version in versions.items()])


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
