"""The event store on PostgreSQL: the library's recorder and table, appended to in one round trip."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString
from weakref import WeakKeyDictionary

import psycopg
from eventsourcing import postgres as library
from eventsourcing.persistence import PersistenceError
from psycopg.rows import dict_row, tuple_row

from projector.domain.events import Recorded
from projector.event_store import (
    EVERY_GROUP,
    Appended,
    Bounds,
    Quarantined,
    StoreUnavailable,
    bounds_between,
    digest,
    in_background,
)
from projector.event_store.mapper import MAPPER_TOPIC, mapper_of
from projector.postgres import CONNECT_TIMEOUT_S, connect, connection_info, decoded, encoded, one_line

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from projector.event_store import Candidate
    from projector.event_store.mapper import EventMapper

_LISTEN_S: Final = 0.5
_RESTED_S: Final = 0.5
STREAMS_BATCH_SIZE: Final = 2_000
_OLDEST: Final = 130_000
_SCHEMA_LOCK: Final = 0x70726F6A
"""Whoever creates the tables holds this advisory lock: `IF NOT EXISTS` alone does not go together with itself."""

_TABLES: Final[tuple[LiteralString, ...]] = (
    "CREATE TABLE IF NOT EXISTS identities (identity bytea PRIMARY KEY, position bigint NOT NULL)",
    """CREATE TABLE IF NOT EXISTS quarantine (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        digest bytea NOT NULL UNIQUE,
        received_at bigint NOT NULL,
        times bigint NOT NULL,
        reason text NOT NULL,
        command text,
        platform text,
        body bytea NOT NULL,
        position bigint)""",
    "CREATE INDEX IF NOT EXISTS quarantine_waiting ON quarantine (id) WHERE position IS NULL",
    # A plan is made when the tables are empty, and kept; what is looked up one by one is never read whole.
    # Under the lock positions are given one by one and commits follow in the same order, so that no reader ever
    # steps over an event. The sequence is set back to the newest: what a failed transaction took leaves no gap.
    """CREATE OR REPLACE FUNCTION append_to_groups(ids text[], topics text[], states bytea[], identities_ bytea[])
    RETURNS TABLE (at_position bigint, is_repeated boolean) LANGUAGE plpgsql AS $$
    DECLARE
        head bigint;
    BEGIN
        LOCK TABLE stored_events IN EXCLUSIVE MODE;
        SELECT COALESCE(MAX(notification_id), 0) INTO head FROM stored_events;
        RETURN QUERY WITH given AS MATERIALIZED (
            SELECT told.*, (SELECT position FROM identities WHERE identities.identity = told.identity) AS known,
                CASE WHEN told.identity IS NULL THEN 1
                    ELSE ROW_NUMBER() OVER (PARTITION BY told.identity ORDER BY told.nth) END AS time
            FROM unnest(ids, topics, states, identities_) WITH ORDINALITY AS told (id, topic, state, identity, nth)),
        newest AS MATERIALIZED (
            SELECT streams.id, (SELECT MAX(originator_version) FROM stored_events WHERE originator_id = streams.id)
                AS version
            FROM (SELECT DISTINCT given.id FROM given) AS streams),
        fresh AS MATERIALIZED (
            SELECT given.*, head + ROW_NUMBER() OVER (ORDER BY given.nth) AS position,
                COALESCE(newest.version, 0) + ROW_NUMBER() OVER (PARTITION BY given.id ORDER BY given.nth) AS version
            FROM given JOIN newest ON newest.id = given.id
            WHERE given.known IS NULL AND given.time = 1),
        appended AS (
            INSERT INTO stored_events (originator_id, originator_version, topic, state, notification_id)
            SELECT fresh.id, fresh.version, fresh.topic, fresh.state, fresh.position FROM fresh ORDER BY fresh.nth),
        remembered AS (
            INSERT INTO identities
            SELECT fresh.identity, fresh.position FROM fresh WHERE fresh.identity IS NOT NULL)
        SELECT COALESCE(given.known, mine.position, first.position), mine.position IS NULL
            FROM given
            LEFT JOIN fresh AS mine ON mine.nth = given.nth
            LEFT JOIN fresh AS first ON first.identity = given.identity
            ORDER BY given.nth;
        PERFORM setval(pg_get_serial_sequence('stored_events', 'notification_id'), MAX(notification_id))
            FROM stored_events HAVING MAX(notification_id) > 0;
        NOTIFY stored_events;
    END $$""",
)
_APPEND: Final = (
    "SELECT at_position, is_repeated FROM append_to_groups(%b::text[], %b::text[], %b::bytea[], %b::bytea[])"
)
_EVENTS: Final = "SELECT notification_id, originator_id, originator_version, topic, state FROM stored_events"
_IN_ORDER: Final = 'originator_id COLLATE "C"'


class Datastore(library.PostgresDatastore):
    """The library's, with connections as the URL says, several hosts and all."""

    def __init__(self, url: str, pool_size: int) -> None:
        super().__init__("", "", "", "", "", originator_id_type="text", connect_timeout=CONNECT_TIMEOUT_S)
        self.pool = library.ConnectionPool(
            connection_info(url),
            connection_class=psycopg.Connection[Any],
            kwargs={"row_factory": dict_row},
            min_size=1,
            max_size=pool_size,
            open=False,
            configure=self.after_connect_func(),
            timeout=CONNECT_TIMEOUT_S,
            check=_Rested().check,
        )


class _Rested:
    """Checks a connection before it is used, if it was not used just now: each check is a round trip."""

    def __init__(self) -> None:
        self._used: WeakKeyDictionary[psycopg.Connection[Any], float] = WeakKeyDictionary()

    def check(self, connection: psycopg.Connection[Any]) -> None:
        """Raise psycopg.Error if the connection is broken, as far as that is looked at."""
        now = time.monotonic()
        if now - self._used.get(connection, -_RESTED_S) >= _RESTED_S:
            library.ConnectionPool.check_connection(connection)
        self._used[connection] = now


class GroupRecorder(library.PostgresApplicationRecorder):
    """The library's recorder, with what stands beside its table."""

    def _create_table(self, curs: psycopg.Cursor[Any]) -> None:
        super()._create_table(curs)
        for statement in _TABLES:
            curs.execute(statement, prepare=False)


class PostgresEventStore:
    """`EventStore` on PostgreSQL."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper, url: str) -> None:
        self._datastore = recorder.datastore
        self._mapper = mapper
        self._url = url

    @property
    def mapper(self) -> EventMapper:
        """See `EventStore`."""
        return self._mapper

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        """See `EventStore`."""
        stored = [self._mapper.to_stored_event(event) for event, _ in batch]
        columns = (
            [encoded(one.originator_id) for one in stored],
            [one.topic for one in stored],
            [one.state for one in stored],
            [identity for _, identity in batch],
        )
        return [Appended(position, repeated=repeated) for position, repeated in self._rows(_APPEND, columns)]

    def read(self, after: int, limit: int) -> list[Recorded]:
        """See `EventStore`."""
        condition = " WHERE notification_id > %s ORDER BY notification_id LIMIT %s"
        return self._recorded(self._rows(_EVENTS + condition, (after, limit)))

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        """See `EventStore`."""
        condition = " WHERE originator_id = %s AND originator_version > %s ORDER BY originator_version LIMIT %s"
        return self._recorded(self._rows(_EVENTS + condition, (encoded(group_id), after_version, limit)))

    def read_streams(self, through: int, bounds: Bounds = EVERY_GROUP) -> Iterator[list[Recorded]]:
        """See `EventStore`."""
        condition = f" WHERE notification_id <= %s AND {_IN_ORDER} >= %s"
        arguments: list[Any] = [through, encoded(bounds.first)]
        if bounds.end is not None:
            condition += f" AND {_IN_ORDER} < %s"
            arguments.append(encoded(bounds.end))
        question = f"{_EVENTS}{condition} ORDER BY {_IN_ORDER}, originator_version"
        with _unavailable(), connect(self._url) as connection:
            connection.execute("SET statement_timeout = 0")
            with connection.transaction(), connection.cursor("streams", row_factory=tuple_row) as cursor:
                cursor.execute(question, arguments)
                while rows := cursor.fetchmany(STREAMS_BATCH_SIZE):
                    yield self._recorded(rows)

    def split(self, through: int, parts: int) -> list[Bounds]:
        """See `EventStore`."""
        place = f"SELECT originator_id FROM stored_events ORDER BY {_IN_ORDER}, originator_version OFFSET %s LIMIT 1"
        found = [row for number in range(1, parts) for row in self._rows(place, (through * number // parts,))]
        return bounds_between([decoded(group_id) for (group_id,) in found])

    def head(self) -> int:
        """See `EventStore`."""
        ((position,),) = self._rows("SELECT COALESCE(MAX(notification_id), 0) FROM stored_events", ())
        return int(position)

    def identities_astray(self) -> int:
        """See `EventStore`."""
        ((astray,),) = self._rows(
            "SELECT COUNT(*) - COUNT(DISTINCT notification_id) FROM identities"
            " LEFT JOIN stored_events ON notification_id = position",
            (),
        )
        return int(astray)

    @contextmanager
    def watching(self, wake: Callable[[], None]) -> Iterator[None]:
        """See `EventStore`."""
        with in_background(partial(_listen, self._url, wake)):
            yield

    def close(self) -> None:
        """See `EventStore`."""
        self._datastore.close()

    def _rows(self, statement: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        return rows(self._datastore, statement, arguments)

    def _recorded(self, found: list[tuple[Any, ...]]) -> list[Recorded]:
        return [
            Recorded(position, self._mapper.decode_or_mark(decoded(group_id), topic, bytes(state)), version)
            for position, group_id, version, topic, state in found
        ]


class PostgresQuarantine:
    """`Quarantine` in a table beside the events; bodies go through the same compressor and cipher."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper) -> None:
        self._datastore = recorder.datastore
        self._mapper = mapper

    def keep(self, *, body: bytes, reason: str, command: str | None, platform: str | None, received_at: int) -> int:
        """See `Quarantine`."""
        told = (
            digest(command, body),
            received_at,
            encoded(reason),
            encoded(command),
            encoded(platform),
            self._mapper.seal(body),
        )
        ((quarantine_id,),) = rows(
            self._datastore,
            "INSERT INTO quarantine (digest, received_at, times, reason, command, platform, body)"
            " VALUES (%s, %s, 1, %s, %s, %s, %s)"
            " ON CONFLICT (digest) DO UPDATE SET times = quarantine.times + 1 RETURNING id",
            told,
        )
        return int(quarantine_id)

    def waiting(self, after: int = 0, limit: int = 100) -> list[Quarantined]:
        """See `Quarantine`."""
        return self._select("position IS NULL AND id > %s ORDER BY id LIMIT %s", (after, limit))

    def find(self, quarantine_id: int) -> Quarantined | None:
        """See `Quarantine`."""
        return next(iter(self._select("id = %s", (quarantine_id,))), None)

    def release(self, quarantine_id: int, position: int) -> None:
        """See `Quarantine`."""
        rows(
            self._datastore,
            "UPDATE quarantine SET position = %s WHERE id = %s RETURNING id",
            (position, quarantine_id),
        )

    def count(self) -> int:
        """See `Quarantine`."""
        ((count,),) = rows(self._datastore, "SELECT COUNT(*) FROM quarantine WHERE position IS NULL", ())
        return int(count)

    def _select(self, condition: str, arguments: tuple[int, ...]) -> list[Quarantined]:
        columns = "id, received_at, times, reason, command, platform, body, position"
        found = rows(self._datastore, f"SELECT {columns} FROM quarantine WHERE {condition}", arguments)
        entries = [Quarantined(*map(decoded, row)) for row in found]
        return [self._mapper.unsealed(entry) for entry in entries]


def open_postgres(
    url: str, library_environment: Mapping[str, str], pool_size: int = 5
) -> tuple[PostgresEventStore, PostgresQuarantine]:
    """Open, and create where missing, the store in the database at `url`; any number of processes may at once.

    `library_environment` carries the event-sourcing library's own settings: compressor, cipher and its key.

    Raises StoreUnavailable if the database cannot be reached or is no such store.
    """
    with _unavailable(), connect(url) as alone:
        if alone.info.server_version < _OLDEST:
            theirs = alone.info.server_version // 10_000
            raise StoreUnavailable(f"PostgreSQL {_OLDEST // 10_000} or newer is needed, and this is {theirs}")
        alone.execute("SET lock_timeout = 0")
        alone.execute("SELECT pg_advisory_lock(%s)", (_SCHEMA_LOCK,))
        recorder = GroupRecorder(Datastore(url, pool_size))
        recorder.create_table()
    factory = library.PostgresFactory(
        {
            "MAPPER_TOPIC": MAPPER_TOPIC,
            **library_environment,
            **dict.fromkeys(("POSTGRES_DBNAME", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER"), "unused"),
            "POSTGRES_PASSWORD": "unused",
        }
    )
    mapper = mapper_of(factory)
    return PostgresEventStore(recorder, mapper, url), PostgresQuarantine(recorder, mapper)


def rows(datastore: library.PostgresDatastore, statement: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, which is a transaction of its own. Raises StoreUnavailable."""
    with _unavailable(), datastore.get_connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement, arguments).fetchall()


def _listen(url: str, wake: Callable[[], None], stopping: threading.Event) -> None:
    """Wake somebody at every notice of an append, until stopped, through every loss of the connection."""
    while not stopping.is_set():
        try:
            with connect(url) as connection:
                connection.execute("LISTEN stored_events")
                wake()
                while not stopping.is_set():
                    for _ in connection.notifies(timeout=_LISTEN_S, stop_after=1):
                        wake()
        except psycopg.Error:
            stopping.wait(_LISTEN_S)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise StoreUnavailable(one_line(error)) from error
    except PersistenceError as error:
        raise StoreUnavailable("PostgreSQL: " + " ".join(str(error).split())) from error
