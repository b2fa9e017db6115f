"""The event store on PostgreSQL: the library's recorder and table, appended to in one round trip."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from eventsourcing import postgres as library
from psycopg.rows import tuple_row

from projector.database.postgres import connect, escape_nul, unescape_nul
from projector.domain.events import Recorded
from projector.domain.redaction import redact
from projector.event_store import (
    ALL_GROUPS,
    MAX_BATCH_BYTES,
    Appended,
    GroupRange,
    StoreUnavailable,
    in_background,
    ranges_between,
)
from projector.event_store.fingerprint import fingerprint
from projector.event_store.forgotten import Pseudonyms
from projector.event_store.mapper import MAPPER_TOPIC, mapper_of
from projector.event_store.postgres_quarantine import PostgresQuarantine
from projector.event_store.postgres_recorder import Datastore, GroupRecorder, exclusive, pseudonyms, rows, unavailable
from projector.settings import MAX_QUARANTINED

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from projector.event_store import Candidate
    from projector.event_store.mapper import EventMapper

_LISTEN_S: Final = 0.5
STREAMS_BATCH_SIZE: Final = 2_000
_FIRST_BATCH_SIZE: Final = 4
_MIN_SERVER_VERSION: Final = 130_000
_SCHEMA_LOCK: Final = 0x70726F6A
"""Whoever creates the tables holds this advisory lock: `IF NOT EXISTS` alone does not go together with itself."""

_APPEND: Final = (
    "SELECT at_position, is_repeated FROM append_to_groups(%b::text[], %b::text[], %b::bytea[], %b::bytea[], %s)"
)
_EVENTS: Final = "SELECT notification_id, originator_id, originator_version, topic, state FROM stored_events"
_IN_ORDER: Final = 'originator_id COLLATE "C"'


class PostgresEventStore:
    """`EventStore` on PostgreSQL."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper, url: str) -> None:
        self._datastore = recorder.datastore
        self._mapper = mapper
        self._url = url
        self._pseudonyms = Pseudonyms()

    @property
    def mapper(self) -> EventMapper:
        return self._mapper

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        while True:
            known = self._pseudonyms
            stored = [self._mapper.to_stored_event(known.instead(event)) for event, _ in batch]
            columns = (
                [escape_nul(one.originator_id) for one in stored],
                [one.topic for one in stored],
                [one.state for one in stored],
                [identity for _, identity in batch],
                known.through,
            )
            appended = self._rows(_APPEND, columns)
            if len(appended) == len(batch):
                return [Appended(position, repeated=repeated) for position, repeated in appended]
            with unavailable(), self._datastore.get_connection() as connection:
                self._pseudonyms = pseudonyms(connection.cursor(row_factory=tuple_row))

    def read(self, after: int, limit: int) -> list[Recorded]:
        condition = "notification_id > %s ORDER BY notification_id LIMIT %s"
        return self._recorded(self._rows(_bounded(condition, "notification_id"), (after, limit, MAX_BATCH_BYTES)))

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        condition = "originator_id = %s AND originator_version > %s ORDER BY originator_version LIMIT %s"
        question = _bounded(condition, "originator_version")
        return self._recorded(self._rows(question, (escape_nul(group_id), after_version, limit, MAX_BATCH_BYTES)))

    def read_streams(self, through: int, bounds: GroupRange = ALL_GROUPS) -> Iterator[list[Recorded]]:
        condition = f" WHERE notification_id <= %s AND {_IN_ORDER} >= %s"
        arguments: list[Any] = [through, escape_nul(bounds.first)]
        if bounds.end is not None:
            condition += f" AND {_IN_ORDER} < %s"
            arguments.append(escape_nul(bounds.end))
        question = f"{_EVENTS}{condition} ORDER BY {_IN_ORDER}, originator_version"
        with unavailable(), connect(self._url) as connection:
            connection.execute("SET statement_timeout = 0")
            with connection.transaction(), connection.cursor("streams", row_factory=tuple_row) as cursor:
                cursor.execute(question, arguments)
                size = _FIRST_BATCH_SIZE
                while rows := cursor.fetchmany(size):
                    yield self._recorded(rows)
                    is_small = sum(len(row[4]) for row in rows) < MAX_BATCH_BYTES // 2
                    size = min(size * 2, STREAMS_BATCH_SIZE) if is_small else max(size // 2, 1)

    def split(self, through: int, parts: int) -> list[GroupRange]:
        place = f"SELECT originator_id FROM stored_events ORDER BY {_IN_ORDER}, originator_version OFFSET %s LIMIT 1"
        found = [row for number in range(1, parts) for row in self._rows(place, (through * number // parts,))]
        return ranges_between([unescape_nul(group_id) for (group_id,) in found])

    def head(self) -> int:
        ((position,),) = self._rows("SELECT COALESCE(MAX(notification_id), 0) FROM stored_events", ())
        return int(position)

    def dangling_identities(self) -> int:
        ((astray,),) = self._rows(
            "SELECT COUNT(*) - COUNT(DISTINCT notification_id) FROM identities"
            " LEFT JOIN stored_events ON notification_id = position",
            (),
        )
        return int(astray)

    def forget(self, account: str) -> str:
        with exclusive(self._datastore) as cursor:
            known = pseudonyms(cursor)
            if pseudonym := known.of({account}).get(account):
                return pseudonym
            another = known.another(account)
            cursor.execute("INSERT INTO forgotten (digest, key, pseudonym) VALUES (%s, %s, %s)", another)
            return another.pseudonym

    def redact(self, positions: Sequence[int], names: Mapping[str, str]) -> None:
        with exclusive(self._datastore) as cursor:
            cursor.execute(f"{_EVENTS} WHERE notification_id = ANY(%s)", (list(positions),))
            found = self._recorded(cursor.fetchall())
            cursor.executemany(
                "UPDATE stored_events SET state = %s WHERE notification_id = %s",
                [(self._mapper.to_stored_event(redact(one.event, names)).state, one.position) for one in found],
            )
            cursor.executemany(
                "INSERT INTO redactions VALUES (%s, %s) ON CONFLICT DO NOTHING",
                [(one.position, fingerprint(one)) for one in found],
            )

    def redactions(self) -> dict[int, bytes]:
        return {
            position: bytes(was) for position, was in self._rows("SELECT position, fingerprint FROM redactions", ())
        }

    @contextmanager
    def watching(self, wake: Callable[[], None]) -> Iterator[None]:
        with in_background(partial(_listen, self._url, wake)):
            yield

    def close(self) -> None:
        self._datastore.close()

    def _rows(self, statement: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        return rows(self._datastore, statement, arguments)

    def _recorded(self, found: list[tuple[Any, ...]]) -> list[Recorded]:
        return [
            Recorded(position, self._mapper.decode_or_mark(unescape_nul(group_id), topic, bytes(state)), version)
            for position, group_id, version, topic, state in found
        ]


def _bounded(condition: str, order: str) -> str:
    """Return a question for events that meet a condition, in order, fewer if they are large; the last `%s` says how."""
    before = f"SUM(LENGTH(state)) OVER (ORDER BY {order}) - LENGTH(state) AS before"
    columns = "notification_id, originator_id, originator_version, topic, state"
    found = f"SELECT {columns}, {before} FROM (SELECT * FROM stored_events WHERE {condition}) AS chosen"
    return f"SELECT {columns} FROM ({found}) AS summed WHERE before <= %s ORDER BY {order}"


def open_postgres(
    url: str, library_environment: Mapping[str, str], max_quarantined: int = MAX_QUARANTINED, pool_size: int = 5
) -> tuple[PostgresEventStore, PostgresQuarantine]:
    """Open, and create where missing, the store in the database at `url`; any number of processes may at once.

    `library_environment` carries the event-sourcing library's own settings: compressor, cipher and its key.

    Raises StoreUnavailable if the database cannot be reached or is no such store.
    """
    with unavailable(), connect(url) as exclusive:
        if exclusive.info.server_version < _MIN_SERVER_VERSION:
            theirs = exclusive.info.server_version // 10_000
            raise StoreUnavailable(
                f"PostgreSQL {_MIN_SERVER_VERSION // 10_000} or newer is needed, and this is {theirs}"
            )
        exclusive.execute("SET lock_timeout = 0")
        exclusive.execute("SELECT pg_advisory_lock(%s)", (_SCHEMA_LOCK,))
        recorder = GroupRecorder(Datastore(url, pool_size))
        recorder.create_table()
    mapper = mapper_with(library_environment)
    return PostgresEventStore(recorder, mapper, url), PostgresQuarantine(recorder, mapper, max_quarantined)


def mapper_with(library_environment: Mapping[str, str]) -> EventMapper:
    """Return the mapper of stores with these settings; there need not be one yet. Raises StoreUnavailable."""
    unused = ("POSTGRES_DBNAME", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD")
    settings = {"MAPPER_TOPIC": MAPPER_TOPIC, **library_environment, **dict.fromkeys(unused, "unused")}
    return mapper_of(library.PostgresFactory(settings))


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
