"""The schemas of a read model on PostgreSQL: a table names the live one and the one before; the rest is rubbish.

public.read_models           name, generation: live → 7, previous → 6
read_model_7, read_model_6   the tables
advisory lock                held by whoever builds the next one
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psycopg

from projector.database.postgres import connect
from projector.read_model.generations import RebuildProgress
from projector.read_model.postgres import (
    LIVE,
    PostgresDraft,
    PostgresReadModel,
    create,
    unavailable,
)
from projector.read_model.schema import OWNED, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

_PREVIOUS: Final = "previous"
_BUILDING_LOCK: Final = 0x70726F62
_CREATE: Final = (
    """CREATE TABLE IF NOT EXISTS public.read_models (
        name text PRIMARY KEY, generation bigint NOT NULL, schema_version bigint NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS public.read_model_building (id bigint PRIMARY KEY, progress text NOT NULL)",
    "CREATE SEQUENCE IF NOT EXISTS public.read_model_generations",
)
_POINT: Final = (
    "INSERT INTO public.read_models VALUES (%s, %s, %s) ON CONFLICT (name)"
    " DO UPDATE SET generation = excluded.generation, schema_version = excluded.schema_version"
)
_GENERATIONS: Final = (
    "SELECT substring(nspname FROM 12)::bigint FROM pg_namespace WHERE nspname ~ '^read_model_[0-9]+$'"
)


class PostgresGeneration:
    """`Generation` in a schema of its own; a part goes into the schema of the whole."""

    def __init__(self, url: str, number: int, *, is_part: bool = False) -> None:
        self._url = url
        self._number = number
        self._is_part = is_part

    @property
    def name(self) -> str:
        return f"read_model_{self._number}"

    def shard(self, number: int) -> PostgresGeneration:  # noqa: ARG002 - every part goes to the same place
        return PostgresGeneration(self._url, self._number, is_part=True)

    def create(self, versions: Mapping[str, int], *, from_scratch: Collection[str]) -> PostgresDraft:
        if not self._is_part:
            with unavailable(), connect(self._url) as connection:
                connection.execute("SET statement_timeout = 0")
                with connection.transaction():
                    # All tables are copied as they are at one moment.
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    live = None if set(from_scratch) == set(versions) else _pointed(connection, LIVE)
                    create(connection, self._number, {name: versions[name] for name in from_scratch})
                    if live is not None:
                        self._copy(connection, f"read_model_{live}", set(versions) - set(from_scratch))
        return PostgresDraft(self._url, self._number)

    def open(self) -> PostgresReadModel:
        return PostgresReadModel(self._url, self._number)

    def promote(self) -> None:
        with unavailable(), connect(self._url) as connection, connection.transaction():
            if (live := _pointed(connection, LIVE)) is not None:
                connection.execute(_POINT, (_PREVIOUS, live, SCHEMA_VERSION))
            connection.execute(_POINT, (LIVE, self._number, SCHEMA_VERSION))

    def _copy(self, connection: psycopg.Connection[Any], source: str, projections: set[str]) -> None:
        copied = ["mark", *(table.name for name in projections for table in OWNED[name])]
        for table in copied:
            connection.execute(f"INSERT INTO {self.name}.{table} SELECT * FROM {source}.{table}")
        for table in ("checkpoints", "set_aside"):
            connection.execute(
                f"INSERT INTO {self.name}.{table} SELECT * FROM {source}.{table} WHERE projection = ANY(%s)",
                (sorted(projections),),
            )


class PostgresGenerations:
    """`Generations` in the schemas of one database."""

    def __init__(self, url: str) -> None:
        self._url = url

    def live(self, *, timeout_s: float = 1) -> PostgresReadModel:
        return PostgresReadModel(self._url, timeout_s=timeout_s)

    @contextlib.contextmanager
    def begin_rebuild(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[PostgresGeneration]:
        # The lock is released with the connection, however the process ends.
        with self._alone(on_wait) as connection:
            with unavailable():
                _sweep(connection)
                ((number,),) = connection.execute("SELECT nextval('public.read_model_generations')").fetchall()
            try:
                yield PostgresGeneration(self._url, number)
            finally:
                with contextlib.suppress(psycopg.Error):  # the next one does it
                    _sweep(connection)

    def previous(self) -> PostgresGeneration | None:
        with unavailable(), connect(self._url) as connection:
            number = _pointed(connection, _PREVIOUS)
        return None if number is None else PostgresGeneration(self._url, number)

    def drop_previous(self) -> None:
        """Its schema goes when the building ends."""
        with unavailable(), connect(self._url) as connection:
            connection.execute("DELETE FROM public.read_models WHERE name = %s", (_PREVIOUS,))

    def report_progress(self, progress: RebuildProgress) -> None:
        with unavailable(), connect(self._url) as connection:
            _say(connection, progress)

    def rebuild_progress(self) -> RebuildProgress | None:
        with unavailable(), connect(self._url) as connection:
            ((is_free,),) = connection.execute("SELECT pg_try_advisory_lock_shared(%s)", (_BUILDING_LOCK,)).fetchall()
            if is_free:
                return None
            found = connection.execute("SELECT progress FROM public.read_model_building").fetchone()
            return msgspec.json.decode(found[0], type=RebuildProgress) if found else RebuildProgress("starting", 0, 0)

    @contextlib.contextmanager
    def _alone(self, on_wait: Callable[[], None]) -> Iterator[psycopg.Connection[Any]]:
        with contextlib.ExitStack() as held:
            with unavailable():
                connection = held.enter_context(connect(self._url))
                connection.execute("SET statement_timeout = 0")
                connection.execute("SET lock_timeout = 0")
                ((is_ours,),) = connection.execute("SELECT pg_try_advisory_lock(%s)", (_BUILDING_LOCK,)).fetchall()
                if not is_ours:
                    on_wait()
                    connection.execute("SELECT pg_advisory_lock(%s)", (_BUILDING_LOCK,))
                for statement in _CREATE:
                    connection.execute(statement)
                _say(connection, RebuildProgress("starting", 0, 0))
                connection.execute("SET lock_timeout = 1000")
            yield connection


def _sweep(connection: psycopg.Connection[Any]) -> None:
    """Remove every schema that is neither live nor previous."""
    kept = {_pointed(connection, LIVE), _pointed(connection, _PREVIOUS)}
    for (number,) in connection.execute(_GENERATIONS).fetchall():
        if number not in kept:
            connection.execute(f"DROP SCHEMA read_model_{number} CASCADE")


def _pointed(connection: psycopg.Connection[Any], name: str) -> int | None:
    found = connection.execute("SELECT generation FROM public.read_models WHERE name = %s", (name,)).fetchone()
    return int(found[0]) if found else None


def _say(connection: psycopg.Connection[Any], progress: RebuildProgress) -> None:
    connection.execute(
        "INSERT INTO public.read_model_building VALUES (1, %s)"
        " ON CONFLICT (id) DO UPDATE SET progress = excluded.progress",
        (msgspec.json.encode(progress).decode(),),
    )
