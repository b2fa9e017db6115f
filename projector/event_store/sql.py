"""What the event stores on both databases share: everything but appending and reading."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent

from projector.database import Connection
from projector.domain.events import Recorded, UndecodableEvent
from projector.domain.redaction import redact
from projector.event_store import Candidate, EventStore, StoreUnreadable
from projector.event_store.fingerprint import fingerprint
from projector.event_store.forgotten import Pseudonyms, pseudonyms_in
from projector.event_store.mapper import EventMapper
from projector.event_store.tables import Transactions


class SQLEventStore(EventStore):
    """The common part of `SQLiteEventStore` and `PostgresEventStore`; `position` is a column of `stored_events`."""

    def __init__(self, transactions: Transactions, mapper: EventMapper, *, position: str) -> None:
        self._transactions = transactions
        self._mapper = mapper
        self._position = position
        self._pseudonyms = Pseudonyms()
        self._is_decodable = False

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

    def dangling_identities(self) -> int:
        with self._transactions.reading() as connection:
            row: Any = connection.execute(
                f"SELECT COUNT(*) - COUNT(DISTINCT stored.{self._position}) FROM identities"
                f" LEFT JOIN stored_events AS stored ON stored.{self._position} = identities.position"
            ).fetchone()
        return int(row[0])

    def forget(self, account: str) -> str:
        with self._transactions.exclusive() as connection:
            known = pseudonyms_in(connection)
            if pseudonym := known.of({account}).get(account):
                return pseudonym
            row = known.new_account(account)
            connection.execute("INSERT INTO forgotten (digest, key, pseudonym) VALUES (?, ?, ?)", row)
            return row.pseudonym

    def redact(self, positions: Sequence[int], pseudonyms: Mapping[str, str]) -> None:
        with self._transactions.exclusive() as connection:
            for position in positions:
                self._redact(connection, position, pseudonyms)
        self._transactions.erase_traces()

    def redactions(self) -> dict[int, bytes]:
        with self._transactions.reading() as connection:
            rows = connection.execute("SELECT position, fingerprint FROM redactions")
            return {position: bytes(original) for position, original in rows}

    def _redact(self, connection: Connection, position: int, pseudonyms: Mapping[str, str]) -> None:
        query = (
            f"SELECT {self._position}, originator_id, originator_version, topic, state"
            f" FROM stored_events WHERE {self._position} = ?"
        )
        (recorded,) = self._recorded(connection.execute(query, (position,)))
        state = self._mapper.to_stored_event(redact(recorded.event, pseudonyms)).state
        connection.execute(f"UPDATE stored_events SET state = ? WHERE {self._position} = ?", (state, position))
        connection.execute(
            "INSERT INTO redactions VALUES (?, ?) ON CONFLICT DO NOTHING", (position, fingerprint(recorded))
        )

    def _stored(self, batch: Sequence[Candidate]) -> list[tuple[StoredEvent, bytes | None]]:
        """Return events in their stored form, with their identities. Raises StoreUnreadable."""
        if not self._is_decodable:
            self.require_decodable()
        known = self._pseudonyms
        return [(self._mapper.to_stored_event(known.redacted(event)), identity) for event, identity in batch]

    def _load_pseudonyms(self) -> None:
        with self._transactions.reading() as connection:
            self._pseudonyms = pseudonyms_in(connection)

    def _recorded(self, rows: Iterable[Any]) -> list[Recorded]:
        decode = self._mapper.decode_or_mark
        return [
            Recorded(position, decode(group_id, topic, state), version)
            for position, group_id, version, topic, state in rows
        ]
