"""The generations of a read model on PostgreSQL: a schema each, and a table that names the live and the previous one.

public.read_models                 name, generation: live-v3 → 7, previous-v3 → 6
read_model_v3_7, read_model_v3_6   the tables
advisory lock                      held during a rebuild; public.read_model_building has its progress

The names contain the version of the schema, so that processes of two versions run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import msgspec
import psycopg

from projector.database.postgres import PostgresConnection, create_statement
from projector.database.postgres_server import PostgresServer
from projector.read_model.generations import STARTING, RebuildProgress
from projector.read_model.postgres import (
    LEADING_LOCK,
    LIVE,
    PostgresDraft,
    PostgresReadModel,
    schema_name,
    switch_views,
    unavailable,
)
from projector.read_model.schema import CHECKPOINTS, SCHEMA_VERSION, TABLES

_PREVIOUS: Final = f"previous-v{SCHEMA_VERSION}"
_BUILDING_LOCK: Final = f"{0x70726F62}, {SCHEMA_VERSION}"
_EARLIER_LEADING_LOCK: Final = 0x70726F6C
_EARLIER_NAMES: Final = ["live", "previous"]
_CREATE: Final = (
    """CREATE TABLE IF NOT EXISTS public.read_models (
        name text PRIMARY KEY, generation bigint NOT NULL, schema_version bigint NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS public.read_model_building (id bigint PRIMARY KEY, progress text NOT NULL)",
    "CREATE SEQUENCE IF NOT EXISTS public.read_model_generations",
)
_SELECT_SCHEMAS: Final = "SELECT nspname FROM pg_namespace WHERE nspname ~ %s"
_SELECT_LEADER: Final = (
    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
    f" AND (classid, objid, objsubid) = ({LEADING_LOCK}, 2)"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_UPSERT_NAME: Final = (
    "INSERT INTO public.read_models VALUES (%s, %s, %s) ON CONFLICT (name)"
    " DO UPDATE SET generation = excluded.generation, schema_version = excluded.schema_version"
)
_UPSERT_PROGRESS: Final = (
    f"INSERT INTO public.read_model_building VALUES ({SCHEMA_VERSION}, %s)"
    " ON CONFLICT (id) DO UPDATE SET progress = excluded.progress"
)


class PostgresGeneration:
    """`Generation` in a schema of its own; a shard is in the schema of the whole."""

    def __init__(self, server: PostgresServer, number: int, *, is_shard: bool = False) -> None:
        self._server = server
        self._number = number
        self._is_shard = is_shard

    @property
    def name(self) -> str:
        return schema_name(self._number)

    def shard(self, number: int) -> PostgresGeneration:  # noqa: ARG002 - all shards are in the same schema
        return PostgresGeneration(self._server, self._number, is_shard=True)

    def create(self, versions: Mapping[str, int], forgotten_through: int) -> PostgresDraft:
        if not self._is_shard:
            with unavailable, self._server.connect() as connection, connection.transaction():
                self._create_tables(connection, versions)
                connection.execute("INSERT INTO forgotten_through VALUES (1, %s)", (forgotten_through,))
        return PostgresDraft(self._server, self._number)

    def open(self) -> PostgresReadModel:
        return PostgresReadModel(self._server, self._number)

    def promote(self) -> None:
        with unavailable, self._server.connect() as connection, connection.transaction():
            if (live := _select_number(connection, LIVE)) is not None:
                connection.execute(_UPSERT_NAME, (_PREVIOUS, live, SCHEMA_VERSION))
            connection.execute(_UPSERT_NAME, (LIVE, self._number, SCHEMA_VERSION))
        with unavailable, self._server.connect() as connection:
            switch_views(connection, self._number)

    def _create_tables(self, connection: psycopg.Connection[Any], versions: Mapping[str, int]) -> None:
        connection.execute(f"CREATE SCHEMA {self.name}")
        connection.execute("SELECT set_config('search_path', %s, true)", (self.name,))
        for table in TABLES:
            connection.execute(create_statement(table))
        PostgresConnection(connection).upsert(CHECKPOINTS, [(*version, 0) for version in versions.items()])


class PostgresGenerations:
    """`Generations` in the schemas of one database."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def live(self, *, timeout_s: float = 1) -> PostgresReadModel:
        return PostgresReadModel(self._server, timeout_s=timeout_s)

    def has_worker(self) -> bool:
        with unavailable, self._server.connect() as connection:
            return connection.execute(_SELECT_LEADER).fetchone() is not None

    @contextmanager
    def begin_rebuild(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[PostgresGeneration]:
        with self._locked(on_wait) as connection:
            with unavailable:
                _drop_unused(connection)
                _drop_earlier_if_unused(connection)
                ((number,),) = connection.execute("SELECT nextval('public.read_model_generations')").fetchall()
            try:
                yield PostgresGeneration(self._server, number)
            finally:
                with suppress(psycopg.Error):  # the next rebuild does it
                    _drop_unused(connection)

    def previous(self) -> PostgresGeneration | None:
        with unavailable, self._server.connect() as connection:
            number = _select_number(connection, _PREVIOUS)
        return None if number is None else PostgresGeneration(self._server, number)

    def drop_previous(self) -> None:
        with unavailable, self._server.connect() as connection:
            connection.execute("DELETE FROM public.read_models WHERE name = %s", (_PREVIOUS,))
            _drop_earlier(connection)

    def report_progress(self, progress: RebuildProgress) -> None:
        with unavailable, self._server.connect() as connection:
            _save_progress(connection, progress)

    def rebuild_progress(self) -> RebuildProgress | None:
        with unavailable, self._server.connect() as connection:
            ((is_free,),) = connection.execute(f"SELECT pg_try_advisory_lock_shared({_BUILDING_LOCK})").fetchall()
            if is_free:
                return None
            query = "SELECT progress FROM public.read_model_building WHERE id = %s"
            row = connection.execute(query, (SCHEMA_VERSION,)).fetchone()
            return msgspec.json.decode(row[0], type=RebuildProgress) if row else STARTING

    @contextmanager
    def _locked(self, on_wait: Callable[[], None]) -> Iterator[psycopg.Connection[Any]]:
        """Hold the right to rebuild. The server releases it with the connection, in whatever way the process ends."""
        with ExitStack() as stack:
            with unavailable:
                connection = stack.enter_context(self._server.connect())
                connection.execute("SET statement_timeout = 0")
                connection.execute("SET lock_timeout = 0")
                ((is_ours,),) = connection.execute(f"SELECT pg_try_advisory_lock({_BUILDING_LOCK})").fetchall()
                if not is_ours:
                    on_wait()
                    connection.execute(f"SELECT pg_advisory_lock({_BUILDING_LOCK})")
                for statement in _CREATE:
                    connection.execute(statement)
                _save_progress(connection, STARTING)
                connection.execute("SET lock_timeout = 1000")
            yield connection


def _select_number(connection: psycopg.Connection[Any], name: str) -> int | None:
    """Return the number of the live or previous generation."""
    row = connection.execute("SELECT generation FROM public.read_models WHERE name = %s", (name,)).fetchone()
    return int(row[0]) if row else None


def _drop_unused(connection: psycopg.Connection[Any]) -> None:
    """Drop every schema that is neither live nor previous."""
    live = _select_number(connection, LIVE)
    if live is not None and not switch_views(connection, live):
        return  # the views still show tables of another generation
    used = {schema_name(number) for name in (LIVE, _PREVIOUS) if (number := _select_number(connection, name))}
    for (schema,) in connection.execute(_SELECT_SCHEMAS, (f"^{schema_name('[0-9]+')}$",)).fetchall():
        if schema not in used:
            # Whoever reads it, e.g. in an open transaction of psql, delays nothing: the next rebuild drops it.
            with suppress(psycopg.errors.LockNotAvailable):
                connection.execute(f"DROP SCHEMA {schema} CASCADE")


def _drop_earlier(connection: psycopg.Connection[Any]) -> None:
    """Drop every schema of an earlier schema version."""
    connection.execute("DELETE FROM public.read_models WHERE name = ANY(%s)", (_EARLIER_NAMES,))
    for (schema,) in connection.execute(_SELECT_SCHEMAS, ("^read_model_[0-9]+$",)).fetchall():
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


def _drop_earlier_if_unused(connection: psycopg.Connection[Any]) -> None:
    """Drop read models of earlier schema versions if no process projects into them, once there is one of this."""
    if _select_number(connection, LIVE) is not None:
        ((is_free,),) = connection.execute("SELECT pg_try_advisory_lock(%s)", (_EARLIER_LEADING_LOCK,)).fetchall()
        if is_free:
            _drop_earlier(connection)
            connection.execute("SELECT pg_advisory_unlock(%s)", (_EARLIER_LEADING_LOCK,))


def _save_progress(connection: psycopg.Connection[Any], progress: RebuildProgress) -> None:
    connection.execute(_UPSERT_PROGRESS, (msgspec.json.encode(progress).decode(),))
