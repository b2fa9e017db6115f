"""What the event stores on both databases share: everything but appending and reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from eventsourcing.persistence import StoredEvent

from projector.database import Connection
from projector.domain.events import Event, Recorded, UndecodableEvent
from projector.event_store import Candidate, EventStore, OtherApp, StoreUnreadable
from projector.event_store.app import record_app, recorded_app
from projector.event_store.fingerprint import fingerprint
from projector.event_store.forgotten import Forgotten
from projector.event_store.mapper import EventMapper
from projector.event_store.notices import Notices
from projector.event_store.pseudonyms import Pseudonyms
from projector.event_store.reconciliations import Reconciliations
from projector.event_store.tables import Transactions


class _Change(NamedTuple):
    """The stored form of an event, before and after its redaction, and the fingerprint that it had."""

    position: int
    state_before: bytes
    state: bytes
    fingerprint: bytes


class SQLEventStore(EventStore):
    """The common part of `SQLiteEventStore` and `PostgresEventStore`; `position` is a column of `stored_events`."""

    def __init__(self, transactions: Transactions, mapper: EventMapper, *, position: str) -> None:
        self._transactions = transactions
        self._mapper = mapper
        self._position = position
        self._pseudonyms = Pseudonyms()
        self._forgotten = Forgotten(transactions, mapper)
        self._reconciliations = Reconciliations(transactions)
        self._notices = Notices(transactions)
        self._is_decodable = False
        self._required_app: int | None = None

    @property
    def mapper(self) -> EventMapper:
        return self._mapper

    def require_decodable(self) -> None:
        ends = [recorded.event for after in {0, max(0, self.head() - 1)} for recorded in self.read(after, 1)]
        reasons = [event.reason for event in ends if isinstance(event, UndecodableEvent)]
        if ends and len(reasons) == len(ends):
            raise StoreUnreadable(
                f"the stored events cannot be read ({reasons[0]}); set COMPRESSOR_TOPIC, CIPHER_TOPIC and CIPHER_KEY"
                " as they were when the events were written"
            )
        self._is_decodable = True

    def require_app(self, sdk_app_id: int) -> None:
        self._required_app = sdk_app_id
        with self._transactions.reading() as connection:
            recorded = recorded_app(connection)
        if recorded is None:
            with self._transactions.writing() as connection:
                recorded = record_app(connection, sdk_app_id)
        if recorded != sdk_app_id:
            raise OtherApp("the database", recorded, sdk_app_id, "PROJECTOR_DATABASE_URL")
        self._required_app = None

    def damage(self) -> list[str]:
        return self._transactions.damage()

    def dangling_identities(self) -> int:
        with self._transactions.reading() as connection:
            row: Any = connection.execute(
                f"SELECT COUNT(*) - COUNT(DISTINCT stored.{self._position}) FROM identities"
                f" LEFT JOIN stored_events AS stored ON stored.{self._position} = identities.position"
            ).fetchone()
        return int(row[0])

    @property
    def forgotten(self) -> Forgotten:
        return self._forgotten

    @property
    def reconciliations(self) -> Reconciliations:
        return self._reconciliations

    @property
    def notices(self) -> Notices:
        return self._notices

    def redact(self, positions: Sequence[int], redacted: Callable[[Event], Event]) -> None:
        while positions:
            changes = [change for position in positions for change in self._changes(position, redacted)]
            with self._transactions.writing() as connection:
                positions = [change.position for change in changes if not self._replace(connection, change)]

    def is_redacted(self, position: int) -> bool:
        with self._transactions.reading() as connection:
            query = "SELECT 1 FROM redactions WHERE position = ?"
            return connection.execute(query, (position,)).fetchone() is not None

    def erase_traces(self) -> bool:
        return self._transactions.erase_traces()

    def redactions(self, after: int, last: int) -> dict[int, bytes]:
        query = "SELECT position, fingerprint FROM redactions WHERE position > ? AND position <= ?"
        with self._transactions.reading() as connection:
            rows = connection.execute(query, (after, last))
            return {position: bytes(original) for position, original in rows}

    def _changes(self, position: int, redacted: Callable[[Event], Event]) -> Iterator[_Change]:
        """Yield the change of the event at a position, if `redacted` changes it."""
        query = (
            f"SELECT {self._position}, originator_id, originator_version, topic, state"
            f" FROM stored_events WHERE {self._position} = ?"
        )
        with self._transactions.reading() as connection:
            rows = list(map(tuple, connection.execute(query, (position,))))
        for recorded in self._recorded(rows):
            if (event := redacted(recorded.event)) is not recorded.event:
                state = self._mapper.to_stored_event(event).state
                yield _Change(position, bytes(rows[0][4]), state, fingerprint(recorded))

    def _replace(self, connection: Connection, change: _Change) -> bool:
        """Replace an event's state, unless it has changed meanwhile; return whether it is replaced."""
        replaced = connection.execute(
            f"UPDATE stored_events SET state = ? WHERE {self._position} = ? AND state = ? RETURNING {self._position}",
            (change.state, change.position, change.state_before),
        )
        if not [*replaced]:
            return False
        connection.execute(
            "INSERT INTO redactions VALUES (?, ?) ON CONFLICT DO NOTHING", (change.position, change.fingerprint)
        )
        return True

    def _stored(self, batch: Sequence[Candidate]) -> list[tuple[StoredEvent, bytes | None]]:
        """Return events in their stored form, with their identities. Raises StoreUnreadable and OtherApp."""
        if not self._is_decodable:
            self.require_decodable()
        if self._required_app is not None:
            self.require_app(self._required_app)
        known = self._pseudonyms
        return [(self._mapper.to_stored_event(known.redacted(event)), identity) for event, identity in batch]

    def _load_pseudonyms(self) -> None:
        self._pseudonyms = self._forgotten.pseudonyms()

    def _recorded(self, rows: Iterable[Any]) -> list[Recorded]:
        decode = self._mapper.decode_stored
        return [
            Recorded(position, decode(group_id, topic, state), version)
            for position, group_id, version, topic, state in rows
        ]
