"""The event-sourcing library's recorder on PostgreSQL, the tables beside its own, and transactions on both."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from eventsourcing import postgres as library
from eventsourcing.persistence import PersistenceError
from psycopg.rows import dict_row, tuple_row

from projector.database.postgres import PostgresConnection, create_statement, errors_as
from projector.database.postgres_server import PostgresServer
from projector.event_store import StoreUnavailable
from projector.event_store.tables import INDEXES, TABLES, require_tables

_MIN_SERVER_VERSION: Final = 130_000
_RETRY_S: Final = 1.0
_POOL_TIMEOUT_S: Final = 5
"""How long a connection is waited for, and tried for; afterwards the next request tries again."""

_IDLE_S: Final = 0.5
_SCHEMA_LOCK: Final = 0x70726F6A
"""An advisory lock, held while tables are created: `IF NOT EXISTS` fails if two processes create them at a time."""

_HAS_FUNCTION: Final = "SELECT to_regprocedure('append_to_groups(text[],text[],bytea[],bytea[],bigint)') IS NOT NULL"

unavailable: Final = errors_as(StoreUnavailable, also=(PersistenceError,))
"""Raises StoreUnavailable in place of the errors of PostgreSQL and of the event-sourcing library."""


class Datastore(library.PostgresDatastore):
    """The library's datastore, connecting as the URL of `server` says, with several hosts if it names them."""

    def __init__(self, server: PostgresServer, pool_size: int) -> None:
        super().__init__("", "", "", "", "", originator_id_type="text")
        after_connect = self.after_connect_func()

        def configure(connection: psycopg.Connection[Any]) -> None:
            after_connect(connection)
            server.set_up(connection)

        self.pool = library.ConnectionPool(
            server.connection_info,
            connection_class=psycopg.Connection[Any],
            kwargs={"row_factory": dict_row},
            min_size=1,
            max_size=pool_size,
            open=False,
            configure=configure,
            timeout=_POOL_TIMEOUT_S,
            reconnect_timeout=_POOL_TIMEOUT_S,
            check=_IdleCheck().check,
        )


class _IdleCheck:
    """Checks a connection before use if it has been idle for some time; each check is a round trip."""

    def __init__(self) -> None:
        self._used: WeakKeyDictionary[psycopg.Connection[Any], float] = WeakKeyDictionary()

    def check(self, connection: psycopg.Connection[Any]) -> None:
        """Raise psycopg.Error if the connection was idle and is broken."""
        now = time.monotonic()
        if now - self._used.get(connection, -_IDLE_S) >= _IDLE_S:
            library.ConnectionPool.check_connection(connection)
        self._used[connection] = now


class GroupRecorder(library.PostgresApplicationRecorder):
    """The library's recorder, with the tables beside its own and the function that appends."""

    def _create_table(self, curs: psycopg.Cursor[Any]) -> None:
        super()._create_table(curs)
        for table in TABLES:
            curs.execute(create_statement(table, if_missing=True), prepare=False)
        for index in INDEXES:
            curs.execute(index.statement, prepare=False)
        has_function = curs.connection.cursor(row_factory=tuple_row).execute(_HAS_FUNCTION).fetchone()
        if has_function != (True,):
            sql = resources.files(__package__).joinpath("append_to_groups.sql").read_text()
            curs.execute(sql, prepare=False)


class PostgresTransactions:
    """`Transactions` on the database of `server`. It connects when it is first used.

    It then creates missing tables or, with `read_only`, requires that there are some. `view` is the statement that
    creates or drops the view of the events.

    While the database is away, one caller at a time tries again, at most once a second; the others fail at once.
    """

    def __init__(self, server: PostgresServer, pool_size: int, *, read_only: bool, view: str) -> None:
        self._view = view
        self._server = server
        self._read_only = read_only
        self._datastore = Datastore(server, pool_size)
        self._is_ready = False
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._failed_at = 0.0

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Take a connection from the pool. Raises StoreUnavailable."""
        with unavailable:
            if not self._is_ready:
                self._prepare()
            with self._datastore.get_connection() as connection:
                yield connection

    def rows(self, statement: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, which is a transaction of its own. Raises StoreUnavailable."""
        with self.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(statement, arguments).fetchall()

    @contextmanager
    def reading(self) -> Iterator[PostgresConnection]:
        with self.connection() as connection:
            yield PostgresConnection(connection)

    @contextmanager
    def writing(self) -> Iterator[PostgresConnection]:
        with self.connection() as connection, connection.transaction():
            yield PostgresConnection(connection)

    @contextmanager
    def exclusive(self) -> Iterator[PostgresConnection]:
        with self.writing() as connection:
            connection.execute("LOCK TABLE stored_events, forgotten, quarantine IN EXCLUSIVE MODE")
            yield connection

    def damage(self) -> list[str]:
        return []  # checksums of its pages are the administrator's to enable

    def erase_traces(self) -> bool:
        return True  # old row versions go with VACUUM, which is the administrator's to run

    def close(self) -> None:
        self._datastore.close()

    def _prepare(self) -> None:
        if not self._lock.acquire(blocking=self._failure is None):
            raise StoreUnavailable(self._failure)
        try:
            if self._failure is not None and time.monotonic() - self._failed_at < _RETRY_S:
                raise StoreUnavailable(self._failure)
            if not self._is_ready:
                self._open()
        finally:
            self._lock.release()

    def _open(self) -> None:
        try:
            with unavailable, self._server.connect() as connection:
                if connection.info.server_version < _MIN_SERVER_VERSION:
                    version = connection.info.server_version // 10_000
                    raise StoreUnavailable(
                        f"PostgreSQL {version} is too old; version {_MIN_SERVER_VERSION // 10_000} or newer is needed"
                    )
                if self._read_only:
                    require_tables(PostgresConnection(connection), f"the database {connection.info.dbname}")
                else:
                    connection.execute("SET lock_timeout = 0")
                    connection.execute("SELECT pg_advisory_lock(%s)", (_SCHEMA_LOCK,))
                    GroupRecorder(self._datastore).create_table()
                    self._create_view(connection)
        except StoreUnavailable as error:
            self._failure, self._failed_at = str(error), time.monotonic()
            raise
        self._is_ready, self._failure = True, None

    def _create_view(self, connection: psycopg.Connection[Any]) -> None:
        """Create or drop the view, unless that is done already, or somebody reads it: no start waits for a view."""
        has_view = connection.execute("SELECT to_regclass('group_events') IS NOT NULL").fetchone() == (True,)
        if has_view is self._view.startswith("DROP"):
            with suppress(psycopg.errors.LockNotAvailable):
                connection.execute("SET lock_timeout = 100")
                connection.execute(self._view)
