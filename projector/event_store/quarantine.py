"""The quarantine: authentic requests that could not be read as callbacks, kept until they can or are dropped."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

from projector.database import Connection
from projector.event_store import StoreUnavailable
from projector.event_store.forgotten import Forgotten
from projector.event_store.mapper import EventMapper
from projector.event_store.pseudonyms import Pseudonyms, newest_pseudonym
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

    @property
    def identity(self) -> bytes:
        """An identity for the event of a request without an `EventTime`, the same at every retry."""
        return self.received_at.to_bytes(6, "big") + blake2b(b"quarantine %d" % self.id, digest_size=12).digest()


class Redacted(NamedTuple):
    """The numbers of entries that were redacted, and of those that cannot be decoded and so not be searched."""

    redacted: int
    undecodable: int


class Quarantine:
    """A table beside the events, of at most `capacity` waiting requests. Bodies are compressed and encrypted as events.

    All methods raise StoreUnavailable.
    """

    def __init__(self, transactions: Transactions, mapper: EventMapper, capacity: int) -> None:
        self._transactions = transactions
        self._mapper = mapper
        self._capacity = capacity
        self._forgotten = Forgotten(transactions, mapper)
        self._pseudonyms = Pseudonyms()

    def keep(self, request: UnreadableRequest) -> int:
        """Make a request durable and return its id; the same bytes again are counted, not kept twice.

        Raises QuarantineFull.
        """
        digest = _digest(request)
        while (quarantine_id := self._keep(digest, self._pseudonyms.redacted_request(request))) is None:
            self._pseudonyms = self._forgotten.pseudonyms()
        return quarantine_id

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

    def redact(self, redacted: Callable[[UnreadableRequest], UnreadableRequest]) -> Redacted:
        """Replace requests, waiting or released, by what `redacted` returns for them, one by one."""
        with self._transactions.reading() as connection:
            ids = [quarantine_id for (quarantine_id,) in connection.execute("SELECT id FROM quarantine")]
        outcomes = [self._redact(quarantine_id, redacted) for quarantine_id in ids]
        return Redacted(outcomes.count(True), outcomes.count(None))

    def count(self) -> int:
        """Return how many requests wait."""
        with self._transactions.reading() as connection:
            return _waiting_count(connection)

    def _keep(self, digest: bytes, request: UnreadableRequest) -> int | None:
        """Insert or count a request; return None, and change nothing, if more accounts are forgotten by now."""
        with self._transactions.exclusive() as connection:
            if newest_pseudonym(connection) != self._pseudonyms.through:
                return None
            self._require_room(connection, digest)
            row = (request.received_at, request.reason, request.command, request.platform)
            rows = connection.execute(
                "INSERT INTO quarantine (digest, received_at, times, reason, command, platform, body)"
                " VALUES (?, ?, 1, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET times = quarantine.times + 1 RETURNING id",
                (digest, *row, self._mapper.seal(request.body)),
            )
            ((quarantine_id,),) = rows
            return int(quarantine_id)

    def _redact(self, quarantine_id: int, redacted: Callable[[UnreadableRequest], UnreadableRequest]) -> bool | None:
        """Redact a request; return whether it changed, None if its body cannot be decoded."""
        with self._transactions.reading() as connection:
            stored = _stored(connection, quarantine_id)
        while stored:
            sealed, *texts = stored
            try:
                request = UnreadableRequest(self._mapper.unseal(sealed), *texts)
            except Exception:  # noqa: BLE001 - ciphers and compressors raise errors of any type
                return None
            if (changed := redacted(request)) == request:
                return False
            before = stored
            with self._transactions.exclusive() as connection:
                if (stored := _stored(connection, quarantine_id)) == before:
                    connection.execute(
                        "UPDATE quarantine SET body = ?, reason = ?, command = ?, platform = ? WHERE id = ?",
                        (
                            self._mapper.seal(changed.body),
                            changed.reason,
                            changed.command,
                            changed.platform,
                            quarantine_id,
                        ),
                    )
                    return True
        return False

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


def _stored(connection: Connection, quarantine_id: int) -> tuple[Any, ...] | None:
    """Return the stored form of an UnreadableRequest, None if there is no such request."""
    query = "SELECT body, reason, command, platform, received_at FROM quarantine WHERE id = ?"
    row = connection.execute(query, (quarantine_id,)).fetchone()
    return (bytes(row[0]), *row[1:]) if row else None


def _waiting_count(connection: Connection) -> int:
    row: Any = connection.execute("SELECT COUNT(*) FROM quarantine WHERE position IS NULL").fetchone()
    return int(row[0])
