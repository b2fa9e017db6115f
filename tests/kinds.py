"""Which database the tests use: SQLite files, or in their stead databases of a PostgreSQL server.

A test names its database by the path of a file. On PostgreSQL the path stands for a database of its own, created when
it is first asked for.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING

import psycopg

from projector.settings import Settings, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import PostgreSQL

_server: PostgreSQL | None = None


def use(server: PostgreSQL | None) -> None:
    """From now on use databases of this server, or SQLite files."""
    global _server  # noqa: PLW0603 - tests of one process run one after the other
    _server = server


def on_postgresql() -> bool:
    return _server is not None


def url_of(database: Path) -> str:
    """Return the URL of what stands for this file."""
    if _server is None:
        return f"sqlite:///{database}"
    return _server.database("test_" + blake2b(str(database).encode(), digest_size=12).hexdigest())


def change_events(database: Path, *statements: str) -> None:
    """Change what is recorded, behind everybody's back."""
    if _server is not None:
        with psycopg.connect(url_of(database), autocommit=True) as server:
            for statement in statements:
                server.execute(statement)
    else:
        with closing(sqlite3.connect(database, isolation_level=None)) as file:
            for statement in statements:
                file.execute(statement)


def settings(database: Path) -> Settings:
    return read_settings({"PROJECTOR_DATABASE_URL": url_of(database)})
