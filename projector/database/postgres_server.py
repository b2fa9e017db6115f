"""A PostgreSQL server: how it is connected to, directly or through a pooler, and the settings of its sessions."""

from __future__ import annotations

import threading
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import tuple_row

_CONNECT_TIMEOUT_S: Final = 3
"""For each host of the URL."""

_KEEPALIVES: Final = {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2}
_USER_TIMEOUT_MS: Final = 3_000
"""Both ends notice a dead connection within three seconds."""

_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "application_name": "projector",
    "tcp_user_timeout": _USER_TIMEOUT_MS,
    **_KEEPALIVES,
}
_SET: Final = (
    "SELECT set_config(name, wanted.value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)"
    " JOIN pg_settings USING (name) WHERE source <> 'client'"
)
"""Settings that came with the connection, in the `options` of its URL, stay."""

_SAMPLES: Final = 5


class SharedSession(psycopg.OperationalError):
    """A pooler gives each transaction any session: locks, settings and notifications would be those of others."""


class PostgresServer:
    """The server and database at `url`, which may name several hosts, and the time-outs of sessions on it; 0 is none.

    Sessions are set up after connecting: poolers refuse settings as parameters of the connection. While the server
    cannot be reached, one caller at a time tries; the others fail at once.
    """

    def __init__(self, url: str, lock_timeout_ms: int = 0, statement_timeout_ms: int = 0) -> None:
        self._arguments = (url, lock_timeout_ms, statement_timeout_ms)
        self._url = url
        settings = {f"tcp_{name}": value for name, value in _KEEPALIVES.items()}
        settings |= {"tcp_user_timeout": _USER_TIMEOUT_MS}
        settings |= {"lock_timeout": lock_timeout_ms, "statement_timeout": statement_timeout_ms}
        self._settings = ([*settings], [*map(str, settings.values())])
        self._has_own_sessions = False
        self._failure: str | None = None
        self._retry = threading.Lock()

    def __reduce__(self) -> tuple[type[PostgresServer], tuple[str, int, int]]:
        # Processes that help to build a read model get the server with it; locks cannot be sent.
        return PostgresServer, self._arguments

    @property
    def connection_info(self) -> str:
        """The connection string: what the URL sets, else a connect timeout and keep-alives.

        Raises psycopg.ProgrammingError if the URL is not PostgreSQL's.
        """
        return make_conninfo(**{**_DEFAULTS, **conninfo_to_dict(self._url)})

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection in autocommit mode, and set up its session. Raises psycopg.Error."""
        if (failure := self._failure) is None:
            return self._connect()
        if not self._retry.acquire(blocking=False):
            raise psycopg.OperationalError(failure)
        try:
            return self._connect()
        finally:
            self._retry.release()

    def set_up(self, connection: psycopg.Connection[Any]) -> None:
        """Set up the session of a connection in autocommit mode. Raises psycopg.Error."""
        if not self._has_own_sessions:
            self._require_own_session(connection)
            self._has_own_sessions = True
        connection.execute(_SET, self._settings)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(self.connection_info, autocommit=True)
        except psycopg.OperationalError as error:
            self._failure = str(error)
            raise
        self._failure = None
        try:
            self.set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_own_session(self, connection: psycopg.Connection[Any]) -> None:
        """Raise SharedSession if transactions of two connections take place in the same session."""
        if _session(connection) == connection.info.backend_pid:
            return  # no pooler is in between
        with psycopg.connect(self.connection_info, autocommit=True) as other:
            seen = {(id(each), _session(each)) for each in (connection, connection, other) * _SAMPLES}
        if not len(seen) == len({session for _, session in seen}) == 2:
            raise SharedSession("the pooler shares sessions between connections; set its pool_mode to session")


def _session(connection: psycopg.Connection[Any]) -> int:
    """Return the process of the server in which a transaction takes place."""
    cursor = connection.cursor(row_factory=tuple_row)
    ((pid,),) = cursor.execute("SELECT pg_backend_pid()", prepare=False).fetchall()
    return int(pid)
