"""The event store on PostgreSQL: the library's table, appended to in one round trip."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg
from eventsourcing import postgres as library
from psycopg.rows import tuple_row

from projector.database.postgres import escape_nul, rfc3339, unescape_nul
from projector.database.postgres_server import PostgresServer
from projector.domain.events import Recorded
from projector.event_store import ALL_GROUPS, Appended, Candidate, GroupRange, group_events_view, ranges_between
from projector.event_store.mapper import MAPPER_TOPIC, EventMapper, mapper_of
from projector.event_store.postgres_recorder import PostgresTransactions, unavailable
from projector.event_store.quarantine import Quarantine
from projector.event_store.reading import MAX_BATCH_BYTES
from projector.event_store.sql import SQLEventStore
from projector.event_store.watching import in_background

_POLL_S: Final = 0.5
STREAMS_BATCH_SIZE: Final = 2_000
_FIRST_BATCH_SIZE: Final = 4

_APPEND: Final = (
    "SELECT at_position, is_repeated FROM append_to_groups(%b::text[], %b::text[], %b::bytea[], %b::bytea[], %s)"
)
_COLUMNS: Final = "notification_id, originator_id, originator_version, topic, state"
_GROUP_ID: Final = 'originator_id COLLATE "C"'


class PostgresEventStore(SQLEventStore):
    """`EventStore` on PostgreSQL. It connects when it is first used."""

    def __init__(self, transactions: PostgresTransactions, mapper: EventMapper, server: PostgresServer) -> None:
        super().__init__(transactions, mapper, position="notification_id")
        self._database = transactions
        self._server = server

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        while True:
            stored, pseudonyms_through = self._stored(batch), self._pseudonyms.through
            columns = (
                [escape_nul(event.originator_id) for event, _ in stored],
                [event.topic for event, _ in stored],
                [event.state for event, _ in stored],
                [identity for _, identity in stored],
                pseudonyms_through,
            )
            rows = self._database.rows(_APPEND, columns)
            if len(rows) == len(batch):
                return [Appended(position, repeated=repeated) for position, repeated in rows]
            self._load_pseudonyms()

    def read(self, after: int, limit: int) -> list[Recorded]:
        query = _bounded("notification_id > %s ORDER BY notification_id LIMIT %s", "notification_id")
        return self._recorded(_unescaped(self._database.rows(query, (after, limit, MAX_BATCH_BYTES))))

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        condition = "originator_id = %s AND originator_version > %s ORDER BY originator_version LIMIT %s"
        arguments = (escape_nul(group_id), after_version, limit, MAX_BATCH_BYTES)
        rows = self._database.rows(_bounded(condition, "originator_version"), arguments)
        return self._recorded(_unescaped(rows))

    def read_streams(self, through: int, groups: GroupRange = ALL_GROUPS) -> Iterator[list[Recorded]]:
        condition = f"notification_id <= %s AND {_GROUP_ID} >= %s"
        arguments: list[Any] = [through, escape_nul(groups.first)]
        if groups.end is not None:
            condition += f" AND {_GROUP_ID} < %s"
            arguments.append(escape_nul(groups.end))
        query = f"SELECT {_COLUMNS} FROM stored_events WHERE {condition} ORDER BY {_GROUP_ID}, originator_version"
        with unavailable, self._server.connect() as connection:
            connection.execute("SET statement_timeout = 0")
            with connection.transaction(), connection.cursor("streams", row_factory=tuple_row) as cursor:
                cursor.execute(query, arguments)
                size = _FIRST_BATCH_SIZE
                while rows := cursor.fetchmany(size):
                    yield self._recorded(_unescaped(rows))
                    is_small = sum(len(row[4]) for row in rows) < MAX_BATCH_BYTES // 2
                    size = min(size * 2, STREAMS_BATCH_SIZE) if is_small else max(size // 2, 1)

    def split(self, through: int, count: int) -> list[GroupRange]:
        query = f"SELECT originator_id FROM stored_events ORDER BY {_GROUP_ID}, originator_version OFFSET %s LIMIT 1"
        rows = [row for number in range(1, count) for row in self._database.rows(query, (through * number // count,))]
        return ranges_between(unescape_nul(group_id) for (group_id,) in rows)

    def head(self) -> int:
        ((position,),) = self._database.rows("SELECT COALESCE(MAX(notification_id), 0) FROM stored_events", ())
        return int(position)

    @contextmanager
    def watching(self, wake: Callable[[], None]) -> Iterator[None]:
        with in_background(partial(_listen, self._server, wake)):
            yield

    def close(self) -> None:
        self._database.close()


def open_postgres(
    server: PostgresServer,
    library_environment: Mapping[str, str],
    *,
    max_quarantined: int,
    pool_size: int,
    read_only: bool = False,
) -> tuple[PostgresEventStore, Quarantine]:
    """Return the store in the database of `server`, which connects when it is first used.

    It then creates what is missing, unless it is `read_only`.

    `library_environment` carries the event-sourcing library's own settings: compressor, cipher and its key.

    Raises StoreUnavailable if these or the URL are wrong.
    """
    unused = ("POSTGRES_DBNAME", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD")
    environment = {"MAPPER_TOPIC": MAPPER_TOPIC, **library_environment, **dict.fromkeys(unused, "unused")}
    mapper = mapper_of(library.PostgresFactory(environment))
    view = group_events_view.for_postgres(rfc3339) if mapper.is_plain else group_events_view.DROP
    with unavailable:
        transactions = PostgresTransactions(server, pool_size, read_only=read_only, view=view)
    return PostgresEventStore(transactions, mapper, server), Quarantine(transactions, mapper, max_quarantined)


def _unescaped(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    return ((position, unescape_nul(group_id), *rest) for position, group_id, *rest in rows)


def _bounded(condition: str, order: str) -> str:
    """Return a query for events that meet a condition, in order; its last argument limits their bytes together."""
    size_before = f"SUM(LENGTH(state)) OVER (ORDER BY {order}) - LENGTH(state) AS size_before"
    events = f"SELECT {_COLUMNS}, {size_before} FROM (SELECT * FROM stored_events WHERE {condition}) AS matching"
    return f"SELECT {_COLUMNS} FROM ({events}) AS sized WHERE size_before <= %s ORDER BY {order}"


def _listen(server: PostgresServer, wake: Callable[[], None], stopping: threading.Event) -> None:
    """Call `wake` at every append, until stopped, and reconnect whenever the connection is lost."""
    while not stopping.is_set():
        try:
            with server.connect() as connection:
                connection.execute("LISTEN stored_events")
                wake()
                while not stopping.is_set():
                    for _ in connection.notifies(timeout=_POLL_S, stop_after=1):
                        wake()
        except psycopg.Error:
            stopping.wait(_POLL_S)
