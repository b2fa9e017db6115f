"""The read model on PostgreSQL: a schema for each generation, and a table that names the live one."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

import psycopg
import structlog

from projector.database.postgres import ROW_ERRORS, BulkConnection, PostgresConnection, errors_as, rfc3339
from projector.database.postgres_server import PostgresServer
from projector.read_model import NoReadModel, ReadModelUnavailable, views
from projector.read_model.generations import MISSING, require_schema
from projector.read_model.query_session import QuerySession
from projector.read_model.schema import POSTGRES_INDEXES, SCHEMA_VERSION, TABLES
from projector.read_model.unit_of_work import ReadTransaction, UnitOfWork, commit_or_roll_back


def schema_name(number: int | str) -> str:
    """Return the name of the PostgreSQL schema of the generation with a number."""
    return f"read_model_v{SCHEMA_VERSION}_{number}"


LIVE: Final = f"live-v{SCHEMA_VERSION}"
WRITING_LOCK: Final = 0x70726F77
"""Advisory lock, together with a generation's number: held by the one transaction that writes the generation."""

LEADING_LOCK: Final = f"{0x70726F6C}, {SCHEMA_VERSION}"
"""Advisory lock: held by the connection of the process that projects into read models of this schema version."""

log = structlog.get_logger(__name__)

_MAX_TRIES: Final = 10
_VIEWS_TIMEOUT_MS: Final = 100
_VIEWS_S: Final = 10.0
"""How often the leader checks that the views show the live generation: who read them may have kept them."""

_SHOWS: Final = (
    "SELECT 1 FROM pg_views WHERE schemaname = 'public' AND viewname = %s AND position(%s in definition) > 0"
)
_READ_ONLY: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SELECT_LIVE: Final = (
    f"SELECT set_config('search_path', '{schema_name('')}' || generation, true), generation, schema_version"
    " FROM public.read_models WHERE name = %s"
)

unavailable: Final = errors_as(ReadModelUnavailable, but=ROW_ERRORS)
"""Raises ReadModelUnavailable in place of PostgreSQL's errors, except those that a row caused."""


class GenerationConnection:
    """One connection, for one thread at a time, to the generation with a number, or to the live one at the time.

    `settings` (`name = value`) are applied to each connection; `timeout_s` limits the wait for locks.
    """

    def __init__(
        self, server: PostgresServer, number: int | None = None, *, timeout_s: float = 1, settings: Sequence[str] = ()
    ) -> None:
        self._server = server
        self._number = number
        self._settings = (f"lock_timeout = {int(timeout_s * 1000)}", *settings)
        self._connection: psycopg.Connection[Any] | None = None

    def connection(self) -> psycopg.Connection[Any]:
        """Return the connection, a new one if the last one broke. Raises psycopg.Error."""
        if self._connection is None or self._connection.closed:
            self._connection = self._server.connect()
            for setting in self._settings:
                self._connection.execute(f"SET {setting}")
        return self._connection

    def begin(self, statement: str = "BEGIN") -> tuple[psycopg.Connection[Any], int]:
        """Begin a transaction that sees the generation's tables; return its number too.

        Raises NoReadModel and psycopg.Error.
        """
        connection = self.connection()
        connection.execute(statement)
        try:
            if self._number is None:
                return connection, self._select_live(connection)
            connection.execute("SELECT set_config('search_path', %s, true)", (schema_name(self._number),))
        except BaseException:
            _roll_back(connection)
            raise
        return connection, self._number

    def begin_exclusive(self) -> tuple[psycopg.Connection[Any], int]:
        """Begin a transaction that excludes other writers and a change of the live generation; return its number too.

        Raises ReadModelUnavailable and psycopg.Error.
        """
        for _ in range(_MAX_TRIES):
            connection, number = self.begin()
            try:
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (WRITING_LOCK, number))
                if self._number is not None or self._select_live(connection) == number:
                    return connection, number
            except BaseException:
                _roll_back(connection)
                raise
            connection.execute("ROLLBACK")
        raise ReadModelUnavailable("the read model is replaced faster than it can be opened")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _select_live(connection: psycopg.Connection[Any]) -> int:
        try:
            row = connection.execute(_SELECT_LIVE, (LIVE,)).fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
        if row is None:
            raise NoReadModel(MISSING)
        _, number, schema_version = row
        require_schema(schema_version)
        return int(number)


class PostgresReadModel:
    """`ReadModel` in the generation with a number, or in the live one at the time."""

    def __init__(
        self, server: PostgresServer, number: int | None = None, *, timeout_s: float = 1, settings: Sequence[str] = ()
    ) -> None:
        self._generation = GenerationConnection(server, number, timeout_s=timeout_s, settings=settings)
        self._leading: psycopg.Connection[Any] | None = None
        self._views_checked_at = 0.0

    @contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        with unavailable, commit_or_roll_back(self._begin()) as connection:
            yield UnitOfWork(connection, unavailable)

    def try_lead(self) -> bool:
        # The lock belongs to the connection that also writes: they are lost together.
        with unavailable:
            connection = self._generation.connection()
            if self._leading is not connection:
                ((is_ours,),) = connection.execute(f"SELECT pg_try_advisory_lock({LEADING_LOCK})").fetchall()
                self._leading = connection if is_ours else None
                self._views_checked_at = -_VIEWS_S
            if self._leading is not None and time.monotonic() > self._views_checked_at + _VIEWS_S:
                self._views_checked_at = time.monotonic()
                with suppress(NoReadModel):
                    switch_views(connection, self._live_number())
        return self._leading is not None

    def step_down(self) -> None:
        if self._leading is not None:
            with unavailable:
                self._leading.execute(f"SELECT pg_advisory_unlock({LEADING_LOCK})")
            self._leading = None

    def _live_number(self) -> int:
        connection, number = self._generation.begin(_READ_ONLY)
        connection.execute("COMMIT")
        return number

    @contextmanager
    def read_transaction(self) -> Iterator[ReadTransaction]:
        with unavailable, commit_or_roll_back(_begin_reading(self._generation)) as connection:
            yield ReadTransaction(connection)

    def close(self) -> None:
        self._generation.close()

    def _begin(self) -> PostgresConnection:
        return PostgresConnection(self._generation.begin_exclusive()[0])


class PostgresDraft(PostgresReadModel):
    """`DraftReadModel` in a schema that has no indexes before it is finished."""

    def __init__(self, server: PostgresServer, number: int) -> None:
        super().__init__(server, number, settings=("statement_timeout = 0", "synchronous_commit = off"))

    def append(self, shard: str) -> None:
        pass  # all shards are in the same tables

    def finish(self) -> None:
        with unavailable, commit_or_roll_back(self._begin()) as connection:
            for index in POSTGRES_INDEXES:
                connection.execute(index.statement)
            for table in TABLES:
                connection.execute(f"ANALYZE {table.name}")
        self.close()

    def _begin(self) -> PostgresConnection:
        # Not exclusive: the processes that build other shards write at the same time.
        return BulkConnection(self._generation.begin()[0])


class PostgresQueries:
    """`Queries` of the live generation, for any thread: one connection for each query that runs at the same time."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._idle: SimpleQueue[GenerationConnection] = SimpleQueue()

    @contextmanager
    def session(self) -> Iterator[QuerySession]:
        try:
            generation = self._idle.get_nowait()
        except Empty:
            generation = GenerationConnection(self._server)
        try:
            with unavailable, commit_or_roll_back(_begin_reading(generation)) as connection:
                yield QuerySession(connection)
        finally:
            self._idle.put(generation)

    def version(self) -> None:
        """Return None: a request to the server would take as long as a query."""

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get_nowait().close()


def switch_views(connection: psycopg.Connection[Any], number: int) -> bool:
    """Let the views show the generation with a number; return False if somebody reads them at the moment.

    If that is not possible at all, e.g. because there is something else of their names, there are no views.
    """
    shown = f"{schema_name(number)}.members"
    if connection.execute(_SHOWS, (views.NAMES[-1], shown)).fetchone():
        return True
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = {_VIEWS_TIMEOUT_MS}")
            for statement in views.statements(
                rfc3339, create="CREATE OR REPLACE VIEW", of=f"{schema_name(number)}.", at="public."
            ):
                connection.execute(statement)
    except psycopg.errors.LockNotAvailable:
        return False
    except psycopg.ProgrammingError as error:
        log.warning("there are no views for SQL", reason=" ".join(str(error).split()))
    return True


def _begin_reading(generation: GenerationConnection) -> PostgresConnection:
    return PostgresConnection(generation.begin(_READ_ONLY)[0])


def _roll_back(connection: psycopg.Connection[Any]) -> None:
    if not connection.closed:
        connection.execute("ROLLBACK")
