"""The event-sourcing library's recorder on PostgreSQL, and what stands beside its table."""

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

from projector.database.postgres import CONNECT_TIMEOUT_S, connection_info, errors_as
from projector.event_store import StoreUnavailable
from projector.event_store.forgotten import Pseudonyms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_RESTED_S: Final = 0.5

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
    """CREATE TABLE IF NOT EXISTS forgotten (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        digest bytea NOT NULL UNIQUE,
        key bytea NOT NULL,
        pseudonym text NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS redactions (position bigint PRIMARY KEY, fingerprint bytea NOT NULL)",
    # A plan is made when the tables are empty, and kept; what is looked up one by one is never read whole.
    # Under the lock positions are given one by one and commits follow in the same order, so that no reader ever
    # steps over an event. The sequence is set back to the newest: what a failed transaction took leaves no gap.
    """CREATE OR REPLACE FUNCTION append_to_groups(
        ids text[], topics text[], states bytea[], identities_ bytea[], forgotten_through bigint)
    RETURNS TABLE (at_position bigint, is_repeated boolean) LANGUAGE plpgsql AS $$
    DECLARE
        head bigint;
    BEGIN
        LOCK TABLE stored_events IN EXCLUSIVE MODE;
        IF (SELECT COALESCE(MAX(id), 0) FROM forgotten) <> forgotten_through THEN
            RETURN;
        END IF;
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


def rows(datastore: library.PostgresDatastore, statement: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, which is a transaction of its own. Raises StoreUnavailable."""
    with unavailable(), datastore.get_connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement, arguments).fetchall()


@contextmanager
def exclusive(datastore: library.PostgresDatastore) -> Iterator[psycopg.Cursor[Any]]:
    """Open a transaction in which nobody else appends, quarantines or forgets. Raises StoreUnavailable."""
    with (
        unavailable(),
        datastore.get_connection() as connection,
        connection.transaction(),
        connection.cursor(row_factory=tuple_row) as cursor,
    ):
        cursor.execute("LOCK TABLE stored_events, forgotten, quarantine IN EXCLUSIVE MODE")
        yield cursor


def pseudonyms(cursor: psycopg.Cursor[Any]) -> Pseudonyms:
    """Return who is forgotten, as a transaction sees it."""
    return Pseudonyms(cursor.execute("SELECT id, digest, key, pseudonym FROM forgotten ORDER BY id").fetchall())


unavailable: Final = partial(errors_as, StoreUnavailable, also=(PersistenceError,))
"""Raise StoreUnavailable in place of the errors of the database and of the event-sourcing library."""
