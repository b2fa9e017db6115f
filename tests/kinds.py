"""The database that the tests use: SQLite files, or databases of a PostgreSQL server in their place.

A test names its database by the path of a file. On PostgreSQL the path stands for a database of its own, created when
it is first used.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from projector.read_model.generation_files import live_path
from projector.read_model.postgres import schema_name
from projector.read_model.schema import SCHEMA_VERSION
from projector.settings import Settings, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgresql import PostgreSQL

_server: PostgreSQL | None = None
_urls: dict[Path, str] = {}
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^read_model_(v[0-9]+_)?[0-9]+$'"


def use(server: PostgreSQL | None) -> None:
    """From now on use databases of this server, or SQLite files."""
    global _server  # noqa: PLW0603 - tests of one process run one after the other
    _server = server


def on_postgresql() -> bool:
    return _server is not None


def url_of(database: Path) -> str:
    """Return the URL of the database that this file stands for."""
    if database in _urls:
        return _urls[database]
    return f"sqlite:///{database}" if _server is None else _server.database(_name(database))


def point(database: Path, url: str) -> None:
    """From now on let this URL stand for this file."""
    _urls[database] = url


def empty_database(directory: Path, name: str = "emptied") -> Path:
    """Return an empty database: in a directory, which must be empty too, or one on PostgreSQL that is emptied."""
    if _server is None:
        return directory / "events.db"
    database = Path("/", name)
    with psycopg.connect(url_of(database), autocommit=True) as server:
        for (schema,) in server.execute(_SCHEMAS).fetchall():
            server.execute(f"DROP SCHEMA {schema} CASCADE")
        for table in ("stored_events", "identities", "quarantine", "forgotten", "redactions", "read_models"):
            if server.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,):
                server.execute(f"TRUNCATE {table}")
    return database


def copied(database: Path, directory: Path) -> Path:
    """Copy a database as it is, so that reading it repairs nothing that the last process left."""
    directory.mkdir()
    copy = directory / database.name
    if _server is not None:
        _server.copy(_name(database), _name(copy))
        return copy
    for file in database.parent.glob(f"{database.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, directory, follow_symlinks=False)
    return copy


@contextmanager
def read_model(database: Path) -> Iterator[Any]:
    """Connect to the live read model, whose tables are named as on SQLite."""
    if _server is None:
        with closing(sqlite3.connect(live_file(database), isolation_level=None, timeout=30)) as file:
            yield file
        return
    with psycopg.connect(url_of(database), autocommit=True) as server:
        name = f"live-v{SCHEMA_VERSION}"
        live = server.execute("SELECT generation FROM public.read_models WHERE name = %s", (name,)).fetchone()
        assert live is not None
        server.execute(f"SET search_path = {schema_name(live[0])}")
        yield server


def live_file(database: Path) -> Path:
    """The link to the live read model on SQLite."""
    return Path(live_path(f"{database}.read-model"))


def generations(database: Path) -> list[str]:
    """The read models there are, live or not, of any version."""
    if _server is not None:
        with psycopg.connect(url_of(database)) as server:
            return [name for (name,) in server.execute(f"{_SCHEMAS} ORDER BY 1")]
    return sorted(
        file.name
        for file in database.parent.iterdir()
        if file.name.startswith(f"{database.name}.read-model") and file.suffix[1:].isdigit()
    )


def _name(database: Path) -> str:
    return "test_" + blake2b(str(database).encode(), digest_size=12).hexdigest()


def change_events(database: Path, *statements: str) -> None:
    """Change stored events directly."""
    if _server is not None:
        with psycopg.connect(url_of(database), autocommit=True) as server:
            for statement in statements:
                server.execute(statement)
    else:
        with closing(sqlite3.connect(database, isolation_level=None)) as file:
            for statement in statements:
                file.execute(statement)


def query_row(database: Path, query: str) -> tuple[Any, ...]:
    """The first row of an answer of the database that keeps the events."""
    if _server is not None:
        with psycopg.connect(url_of(database)) as server:
            row = server.execute(query).fetchone()
    else:
        with closing(sqlite3.connect(database)) as file:
            row = file.execute(query).fetchone()
    assert row is not None
    return tuple(row)


def settings(database: Path) -> Settings:
    return read_settings({"PROJECTOR_DATABASE_URL": url_of(database)})
