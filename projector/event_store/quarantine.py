"""The quarantine: authentic requests that could not be read as callbacks, kept until they can or are dropped."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from projector.database import Connection
from projector.event_store import StoreUnavailable
from projector.event_store.forgotten import pseudonyms_in, redact_request
from projector.event_store.mapper import EventMapper
from projector.event_store.tables import Transactions

_COLUMNS = "id, received_at, times, reason, command, platform, body, position"


class QuarantineFull(StoreUnavailable):
    """The quarantine holds as many requests as it may."""

    def __init__(self, count: int) -> None:
        super().__init__(f"the quarantine is full: {count} callbacks wait in it; see `projector quarantine list`")


class UnreadableRequest(NamedTuple):
    """An authentic request that could not be read as a callback; `received_at` is in ms since 1970 UTC."""

    body: bytes
    reason: str
    command: str | None
    platform: str | None
    received_at: int


class Quarantined(NamedTuple):
    """A request in the quarantine.

    `received_at` is in ms since 1970 UTC; `times` counts deliveries of the same bytes; `position` is that of the event
    it became when it was retried, None while it waits.
    """

    id: int
    received_at: int
    times: int
    reason: str
    command: str | None
    platform: str | None
    body: bytes
    position: int | None


class Quarantine:
    """A table beside the events, of at most `capacity` waiting requests. Bodies are compressed and encrypted as events.

    All methods raise StoreUnavailable.
    """

    def __init__(self, transactions: Transactions, mapper: EventMapper, capacity: int) -> None:
        self._transactions = transactions
        self._mapper = mapper
        self._capacity = capacity

    def keep(self, request: UnreadableRequest) -> int:
        """Make a request durable and return its id; the same bytes again are counted, not kept twice.

        Raises QuarantineFull.
        """
        digest = _digest(request)
        with self._transactions.exclusive() as connection:
            self._require_room(connection, digest)
            redacted = pseudonyms_in(connection).redacted_request(request)
            rows = connection.execute(
                "INSERT INTO quarantine (digest, received_at, times, reason, command, platform, body)"
                " VALUES (?, ?, 1, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET times = quarantine.times + 1 RETURNING id",
                (
                    digest,
                    redacted.received_at,
                    redacted.reason,
                    redacted.command,
                    redacted.platform,
                    self._mapper.seal(redacted.body),
                ),
            )
            ((quarantine_id,),) = rows
            return int(quarantine_id)

    def waiting(self, after: int = 0, limit: int = 100) -> list[Quarantined]:
        """Return waiting requests whose id is greater than `after`, by id."""
        return self._select("position IS NULL AND id > ? ORDER BY id LIMIT ?", (after, limit))

    def find(self, quarantine_id: int) -> Quarantined | None:
        """Return a request, waiting or released."""
        return next(iter(self._select("id = ?", (quarantine_id,))), None)

    def release(self, quarantine_id: int, position: int) -> None:
        """Record that a request became the event at this position."""
        with self._transactions.writing() as connection:
            connection.execute("UPDATE quarantine SET position = ? WHERE id = ?", (position, quarantine_id))

    def drop(self, quarantine_id: int) -> bool:
        """Delete a request permanently; return whether there was one."""
        with self._transactions.writing() as connection:
            deleted = connection.execute("DELETE FROM quarantine WHERE id = ? RETURNING id", (quarantine_id,))
            return bool([*deleted])

    def redact(self, pseudonyms: Mapping[str, str]) -> int:
        """Replace accounts by pseudonyms in all requests, waiting or released; return in how many."""
        with self._transactions.exclusive() as connection:
            ids = [quarantine_id for (quarantine_id,) in connection.execute("SELECT id FROM quarantine")]
            count = sum(self._redact(connection, quarantine_id, pseudonyms) for quarantine_id in ids)
        self._transactions.erase_traces()
        return count

    def count(self) -> int:
        """Return how many requests wait."""
        with self._transactions.reading() as connection:
            return _waiting_count(connection)

    def _redact(self, connection: Connection, quarantine_id: int, pseudonyms: Mapping[str, str]) -> bool:
        query = "SELECT body, reason, command, platform, received_at FROM quarantine WHERE id = ?"
        ((sealed, *texts),) = connection.execute(query, (quarantine_id,))
        request = UnreadableRequest(self._mapper.unseal(bytes(sealed)), *texts)
        redacted = redact_request(request, pseudonyms)
        if redacted == request:
            return False
        connection.execute(
            "UPDATE quarantine SET body = ?, reason = ?, command = ?, platform = ? WHERE id = ?",
            (self._mapper.seal(redacted.body), redacted.reason, redacted.command, redacted.platform, quarantine_id),
        )
        return True

    def _require_room(self, connection: Connection, digest: bytes) -> None:
        count = _waiting_count(connection)
        known = connection.execute("SELECT 1 FROM quarantine WHERE digest = ?", (digest,)).fetchone()
        if count >= self._capacity and not known:
            raise QuarantineFull(count)

    def _select(self, condition: str, arguments: tuple[int, ...]) -> list[Quarantined]:
        with self._transactions.reading() as connection:
            rows = list(connection.execute(f"SELECT {_COLUMNS} FROM quarantine WHERE {condition}", arguments))
        return [self._unsealed(Quarantined(*row)) for row in rows]

    def _unsealed(self, entry: Quarantined) -> Quarantined:
        try:
            return entry._replace(body=self._mapper.unseal(bytes(entry.body)))
        except Exception as error:
            raise StoreUnavailable(
                f"the body of quarantined callback {entry.id} cannot be decoded ({error}); is CIPHER_KEY unchanged?"
            ) from error


def _digest(request: UnreadableRequest) -> bytes:
    """Return a hash of command and body: requests with the same are counted as one."""
    return blake2b(f"{request.command}\n".encode() + request.body, digest_size=16).digest()


def _waiting_count(connection: Connection) -> int:
    row: Any = connection.execute("SELECT COUNT(*) FROM quarantine WHERE position IS NULL").fetchone()
    return int(row[0])
