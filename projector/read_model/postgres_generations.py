"""The generations of a read model on PostgreSQL: a schema each, and a table that names the live and the previous one.

public.read_models           name, generation: live → 7, previous → 6
read_model_7, read_model_6   the tables
advisory lock                held during a rebuild; public.read_model_building has its progress
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import msgspec
import psycopg

from projector.database.postgres import PostgresConnection, create_statement
from projector.database.postgres_server import PostgresServer
from projector.read_model.generations import STARTING, RebuildProgress
from projector.read_model.postgres import LEADING_LOCK, LIVE, PostgresDraft, PostgresReadModel, unavailable
from projector.read_model.schema import CHECKPOINTS, PROJECTION_TABLES, SCHEMA_VERSION, TABLES

_PREVIOUS: Final = "previous"
_BUILDING_LOCK: Final = 0x70726F62
_CREATE: Final = (
    """CREATE TABLE IF NOT EXISTS public.read_models (
        name text PRIMARY KEY, generation bigint NOT NULL, schema_version bigint NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS public.read_model_building (id bigint PRIMARY KEY, progress text NOT NULL)",
    "CREATE SEQUENCE IF NOT EXISTS public.read_model_generations",
)
_SELECT_NUMBERS: Final = (
    "SELECT substring(nspname FROM 12)::bigint FROM pg_namespace WHERE nspname ~ '^read_model_[0-9]+$'"
)
_SELECT_LEADER: Final = (
    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND (classid, objid, objsubid) = (0, %s, 1) AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_UPSERT_NAME: Final = (
    "INSERT INTO public.read_models VALUES (%s, %s, %s) ON CONFLICT (name)"
    " DO UPDATE SET generation = excluded.generation, schema_version = excluded.schema_version"
)
_UPSERT_PROGRESS: Final = (
    "INSERT INTO public.read_model_building VALUES (1, %s) ON CONFLICT (id) DO UPDATE SET progress = excluded.progress"
)


class PostgresGeneration:
    """`Generation` in a schema of its own; a shard is in the schema of the whole."""

    def __init__(self, server: PostgresServer, number: int, *, is_shard: bool = False) -> None:
        self._server = server
        self._number = number
        self._is_shard = is_shard

    @property
    def name(self) -> str:
        return f"read_model_{self._number}"

    def shard(self, number: int) -> PostgresGeneration:  # noqa: ARG002 - all shards are in the same schema
        return PostgresGeneration(self._server, self._number, is_shard=True)

    def create(
        self, versions: Mapping[str, int], *, from_scratch: Collection[str], forgotten_through: int
    ) -> PostgresDraft:
        if not self._is_shard:
            copied = set(versions) - set(from_scratch)
            with unavailable, self._server.connect() as connection:
                connection.execute("SET statement_timeout = 0")
                with connection.transaction():
                    # All tables are copied as of the same moment.
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    self._create_tables(connection, {name: versions[name] for name in from_scratch})
                    connection.execute("INSERT INTO forgotten_through VALUES (1, %s)", (forgotten_through,))
                    if copied and (live := _select_number(connection, LIVE)) is not None:
                        self._copy(connection, f"read_model_{live}", copied)
        return PostgresDraft(self._server, self._number)

    def open(self) -> PostgresReadModel:
        return PostgresReadModel(self._server, self._number)

    def promote(self) -> None:
        with unavailable, self._server.connect() as connection, connection.transaction():
            if (live := _select_number(connection, LIVE)) is not None:
                connection.execute(_UPSERT_NAME, (_PREVIOUS, live, SCHEMA_VERSION))
            connection.execute(_UPSERT_NAME, (LIVE, self._number, SCHEMA_VERSION))

    def _create_tables(self, connection: psycopg.Connection[Any], empty: Mapping[str, int]) -> None:
        connection.execute(f"CREATE SCHEMA {self.name}")
        connection.execute("SELECT set_config('search_path', %s, true)", (self.name,))
        for table in TABLES:
            connection.execute(create_statement(table))
        PostgresConnection(connection).upsert(CHECKPOINTS, [(*version, 0) for version in empty.items()])

    def _copy(self, connection: psycopg.Connection[Any], source: str, projections: set[str]) -> None:
        for table in ("mark", *(table.name for projection in projections for table in PROJECTION_TABLES[projection])):
            connection.execute(f"INSERT INTO {self.name}.{table} SELECT * FROM {source}.{table}")
        for table in ("checkpoints", "set_aside"):
            connection.execute(
                f"INSERT INTO {self.name}.{table} SELECT * FROM {source}.{table} WHERE projection = ANY(%s)",
                (sorted(projections),),
            )


class PostgresGenerations:
    """`Generations` in the schemas of one database."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def live(self, *, timeout_s: float = 1) -> PostgresReadModel:
        return PostgresReadModel(self._server, timeout_s=timeout_s)

    def has_worker(self) -> bool:
        with unavailable, self._server.connect() as connection:
            return connection.execute(_SELECT_LEADER, (LEADING_LOCK,)).fetchone() is not None

    @contextmanager
    def begin_rebuild(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[PostgresGeneration]:
        with self._locked(on_wait) as connection:
            with unavailable:
                _drop_unused(connection)
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

    def report_progress(self, progress: RebuildProgress) -> None:
        with unavailable, self._server.connect() as connection:
            _save_progress(connection, progress)

    def rebuild_progress(self) -> RebuildProgress | None:
        with unavailable, self._server.connect() as connection:
            ((is_free,),) = connection.execute("SELECT pg_try_advisory_lock_shared(%s)", (_BUILDING_LOCK,)).fetchall()
            if is_free:
                return None
            row = connection.execute("SELECT progress FROM public.read_model_building").fetchone()
            return msgspec.json.decode(row[0], type=RebuildProgress) if row else STARTING

    @contextmanager
    def _locked(self, on_wait: Callable[[], None]) -> Iterator[psycopg.Connection[Any]]:
        """Hold the right to rebuild. The server releases it with the connection, in whatever way the process ends."""
        with ExitStack() as stack:
            with unavailable:
                connection = stack.enter_context(self._server.connect())
                connection.execute("SET statement_timeout = 0")
                connection.execute("SET lock_timeout = 0")
                ((is_ours,),) = connection.execute("SELECT pg_try_advisory_lock(%s)", (_BUILDING_LOCK,)).fetchall()
                if not is_ours:
                    on_wait()
                    connection.execute("SELECT pg_advisory_lock(%s)", (_BUILDING_LOCK,))
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
    used = {_select_number(connection, LIVE), _select_number(connection, _PREVIOUS)}
    for (number,) in connection.execute(_SELECT_NUMBERS).fetchall():
        if number not in used:
            connection.execute(f"DROP SCHEMA read_model_{number} CASCADE")


def _save_progress(connection: psycopg.Connection[Any], progress: RebuildProgress) -> None:
    connection.execute(_UPSERT_PROGRESS, (msgspec.json.encode(progress).decode(),))
