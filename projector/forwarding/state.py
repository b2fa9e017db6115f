"""What a forwarder must not lose: its cursor, and the messages that are not delivered yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NamedTuple

from projector.database import Connection, Table, integers, text

FORWARD_CURSORS: Final = Table("forward_cursors", 1, text("name", "cursor"))
FORWARD_PENDING: Final = Table(
    "forward_pending", 1, (*integers("id"), *text("name", "lane", "webhook_id", "body")), numbered=True
)
TABLES: Final = (FORWARD_CURSORS, FORWARD_PENDING)


class StateUnavailable(Exception):
    """The state of a forwarder cannot be read or written, or another process has it. The text says why."""


class Pending(NamedTuple):
    """A message to be delivered; those of one lane, usually a group, in order."""

    id: int
    lane: str
    webhook_id: str
    body: str


class StateConnection(NamedTuple):
    """A connection of its own, on which the forwarder's tables exist; `errors` raises StateUnavailable."""

    connection: Connection
    errors: AbstractContextManager[None]


class ForwardState:
    """The state of one forwarder, whose name tells it from others. All methods raise StateUnavailable."""

    def __init__(self, opened: StateConnection, name: str) -> None:
        self._connection = opened.connection
        self._errors = opened.errors
        self._name = name

    def cursor(self) -> str | None:
        """Return the cursor after the newest message accepted, None before the first."""
        with self._errors:
            query = "SELECT cursor FROM forward_cursors WHERE name = ?"
            row = self._connection.execute(query, (self._name,)).fetchone()
        return str(row[0]) if row else None

    def pending(self) -> list[Pending]:
        """Return the messages that are not delivered yet, in order."""
        with self._errors:
            query = "SELECT id, lane, webhook_id, body FROM forward_pending WHERE name = ? ORDER BY id"
            return [Pending(*row) for row in self._connection.execute(query, (self._name,))]

    def accept(self, cursor: str, messages: Sequence[tuple[str, str, str]]) -> list[Pending]:
        """Make messages (lane, id, body) durable, and with them the cursor after them; return them numbered."""
        accepted = []
        with self._transaction():
            for lane, webhook_id, body in messages:
                (number,) = self._connection.execute(
                    "INSERT INTO forward_pending (name, lane, webhook_id, body) VALUES (?, ?, ?, ?) RETURNING id",
                    (self._name, lane, webhook_id, body),
                ).fetchone()
                accepted.append(Pending(number, lane, webhook_id, body))
            self._connection.upsert(FORWARD_CURSORS, [(self._name, cursor)])
        return accepted

    def delivered(self, numbers: Iterable[int]) -> None:
        """Delete messages that are delivered."""
        with self._transaction():
            for number in numbers:
                self._connection.execute("DELETE FROM forward_pending WHERE id = ?", (number,))

    def skip(self, lane: str) -> int:
        """Delete the messages of a lane; return how many there were."""
        with self._transaction():
            query = "DELETE FROM forward_pending WHERE name = ? AND lane = ? RETURNING id"
            return len([*self._connection.execute(query, (self._name, lane))])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors:
            self._connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
