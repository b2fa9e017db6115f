"""The log of a feed: its encoded messages by position, made once and kept for all readers of a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol

import msgspec

from projector.domain import membership
from projector.domain.events import Event, GroupDismissed, Recorded, type_name
from projector.event_store import EventStore
from projector.event_store.renamed_events import RenamedEvents
from projector.feeds.changes import Changes
from projector.feeds.cursor import FeedCursor, short_fingerprint
from projector.feeds.folded_group import Past
from projector.feeds.messages import ChangeMessage, change_message
from projector.read_model import Queries
from projector.read_model.query_session import QuerySession

MAX_BYTES: Final = 16 * 1024 * 1024
BATCH_SIZE: Final = 500
_ENTRY_BYTES: Final = 500
"""The approximate size of the objects that hold an entry, without its message."""

_encode: Final = msgspec.json.Encoder().encode
_NOBODY: Final[frozenset[str]] = frozenset()


class FeedState(NamedTuple):
    """How far a feed goes: the position of the read model, the newest notice, and the newest change of the history.

    `head` is the position of the newest event, and `lag_ms` the age of the oldest one that the read model lacks.
    """

    reached: int
    notice: int
    history_change: int
    head: int
    lag_ms: int


class Message(NamedTuple):
    """An encoded message, and by what it is selected. `concerns_all` passes every filter of users and types.

    `occurred_at` is in ms since 1970 UTC.
    """

    data: bytes
    group_id: str
    occurred_at: int
    types: frozenset[str]
    users: frozenset[str]
    concerns_all: bool


class Entry(NamedTuple):
    """A position of the log, with the cursor after it; most have a message."""

    cursor: FeedCursor
    message: Message | None


class Batch(NamedTuple):
    """Consecutive entries, and what they depend on: the newest notice, and the newest forgetting in the read model."""

    notice: int
    forgotten_through: int
    entries: list[Entry]


class FeedLog:
    """The log of one feed. `load` may be called from one thread at a time; the other methods are for one thread."""

    def __init__(
        self, store: EventStore, queries: Queries, encoder: MessageEncoder, max_bytes: int = MAX_BYTES
    ) -> None:
        self._store = store
        self._queries = queries
        self._encoder = encoder
        self._max_bytes = max_bytes
        self._entries: dict[int, Entry] = {}
        self._bytes = 0
        self._made_with = (0, 0)

    def load(self, after: int, limit: int = BATCH_SIZE) -> Batch:
        """Make the entries after a position, up to that of the read model.

        Raises StoreUnavailable and ReadModelUnavailable.
        """
        # The notices are read first: their effects are then already in the state that is read.
        notice = self._store.notices.newest()
        with self._queries.session() as session:
            forgotten_through = session.forgotten_through()
            limit = min(limit, session.reached() - after)
            events = self._store.read(after, limit) if limit > 0 else []
            if not events:
                return Batch(notice, forgotten_through, [])
            redactions = self._store.redactions(after, events[-1].position)
            cursors = [FeedCursor(event.position, short_fingerprint(event, redactions), notice) for event in events]
            named = RenamedEvents(self._store, session.forgotten_through).rename_already_read(events)
            messages = self._encoder.encode(self._store, session, named, cursors, (notice, forgotten_through))
        return Batch(notice, forgotten_through, list(map(Entry, cursors, messages)))

    def keep(self, batch: Batch) -> None:
        """Keep entries for others; all earlier ones are dropped if a notice may have changed them."""
        if self._made_with != batch[:2]:
            self._entries.clear()
            self._bytes = 0
            self._made_with = batch[:2]
        for entry in batch.entries:
            self._drop(entry.cursor.position)
            self._entries[entry.cursor.position] = entry
            self._bytes += _size(entry)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def kept(self, after: int, through: int, notice: int, limit: int = BATCH_SIZE) -> list[Entry]:
        """Return the entries after a position up to another, as far as they are kept without a gap."""
        if self._made_with[0] != notice:
            return []
        entries = []
        for position in islice(range(after + 1, through + 1), limit):
            if (entry := self._entries.get(position)) is None:
                break
            entries.append(entry)
        return entries

    def _drop(self, position: int) -> None:
        if entry := self._entries.pop(position, None):
            self._bytes -= _size(entry)


class MessageEncoder(Protocol):
    """Makes the messages of a feed."""

    def encode(
        self,
        store: EventStore,
        session: QuerySession,
        events: Sequence[Recorded],
        cursors: Sequence[FeedCursor],
        made_with: tuple[int, int],
    ) -> list[Message | None]:
        """Return the messages about consecutive events, given the cursors after them.

        Whatever was kept is dropped if it was `made_with` something else.
        """


class ChangesEncoder:
    """Makes the messages of the changes feed."""

    def __init__(self) -> None:
        self._changes = Changes()
        self._made_with = (0, 0)

    def encode(
        self,
        store: EventStore,
        session: QuerySession,
        events: Sequence[Recorded],
        cursors: Sequence[FeedCursor],
        made_with: tuple[int, int],
    ) -> list[Message | None]:
        if made_with != self._made_with:
            self._changes.clear()
            self._made_with = made_with
        past = Past(RenamedEvents(store, session.forgotten_through), session.stored_states)
        differences = self._changes.fold(past, events)
        return [
            _change(recorded, message)
            if (difference := differences.get(recorded.position)) and (message := change_message(difference, cursor))
            else None
            for recorded, cursor in zip(events, cursors, strict=True)
        ]


class EventsEncoder:
    """Makes the messages of the events feed. `shape` returns an event as it is shown."""

    def __init__(self, shape: Callable[[Recorded], msgspec.Struct]) -> None:
        self._shape = shape

    def encode(
        self,
        _: EventStore,
        __: QuerySession,
        events: Sequence[Recorded],
        ___: Sequence[FeedCursor],
        ____: tuple[int, int],
    ) -> list[Message | None]:
        return [_event(recorded, self._shape(recorded)) for recorded in events]


def _change(recorded: Recorded, message: ChangeMessage) -> Message:
    types = frozenset(change.type for change in message.changes)
    users = frozenset(change.user_id for change in message.changes if isinstance(change.user_id, str))
    return Message(
        _encode(message),
        message.group_id,
        recorded.event.occurred_at,
        types,
        users,
        concerns_all=not types.isdisjoint({"group.dismissed", "group.reset"}),
    )


def _event(recorded: Recorded, shape: msgspec.Struct) -> Message:
    event = recorded.event
    is_dismissal = isinstance(event, GroupDismissed)
    return Message(
        _encode(shape), event.group_id, event.occurred_at, frozenset({type_name(event)}), _users(event), is_dismissal
    )


def _users(event: Event) -> frozenset[str]:
    owner = getattr(event, "owner", None)
    return frozenset((*membership.users(event), owner) if owner else membership.users(event)) or _NOBODY


def _size(entry: Entry) -> int:
    return _ENTRY_BYTES + (len(entry.message.data) if entry.message else 0)
