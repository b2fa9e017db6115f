"""Where the state of a forwarder is kept: a file of its own, or the database; one process at a time has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from projector.database import sqlite as sqlite_database
from projector.database.sqlite import SQLiteConnection, create_private_file
from projector.forwarding.state import TABLES, StateConnection, StateUnavailable

if TYPE_CHECKING:
    from projector.database.postgres_server import PostgresServer

_BUSY: Final = "another process forwards from this state"


@contextmanager
def file_state(path: str) -> Iterator[StateConnection]:
    """Open the state in an SQLite file, and keep other processes from it. Raises StateUnavailable."""
    errors = sqlite_database.errors_as(StateUnavailable, name=path)
    with errors:
        create_private_file(path)
        file = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    with closing(file):
        with errors, _busy_as_unavailable(path):
            file.execute("PRAGMA locking_mode=EXCLUSIVE")  # from the next transaction on, until the file is closed
            file.execute("PRAGMA synchronous=FULL")
            file.execute("BEGIN EXCLUSIVE")
            for table in TABLES:
                file.execute(sqlite_database.create_statement(table, if_missing=True))
            file.execute("COMMIT")
        yield StateConnection(SQLiteConnection(file), errors)


@contextmanager
def _busy_as_unavailable(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        raise StateUnavailable(f"{path}: {_BUSY}") from None


@contextmanager
def server_state(connect: Callable[[], PostgresServer], name: str) -> Iterator[StateConnection]:
    """Open the state in a PostgreSQL database, and keep other processes from that of this name."""
    from projector.database import postgres  # noqa: PLC0415 - the driver is an optional dependency

    errors = postgres.errors_as(StateUnavailable)
    with errors:
        session = connect().connect()
    with closing(session):
        connection = postgres.PostgresConnection(session)
        key = int.from_bytes(blake2b(f"forward {name}".encode(), digest_size=8).digest(), signed=True)
        with errors:
            (is_ours,) = connection.execute("SELECT pg_try_advisory_lock(?)", (key,)).fetchone()
            if not is_ours:
                raise StateUnavailable(_BUSY)
            for table in TABLES:
                session.execute(postgres.create_statement(table, if_missing=True), prepare=False)
        yield StateConnection(connection, errors)
