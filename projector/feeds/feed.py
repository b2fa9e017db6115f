"""Reading a feed from a cursor on: notices first, then messages, so that all messages carry the newest notice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from projector.clock import now_ms
from projector.event_store import EventStore
from projector.feeds.cursor import FeedCursor, HistoryChanged
from projector.feeds.log import BATCH_SIZE, Batch, FeedLog, FeedState, Message
from projector.feeds.messages import notice_message
from projector.feeds.selection import Selection
from projector.read_model import Queries

MAX_NOTICES: Final = 100

_encode: Final = msgspec.json.Encoder().encode


class Runner(Protocol):
    """Runs work that reads the databases, in a thread unless it is short."""

    def __call__(self, work: Callable[..., Any], *arguments: Any, is_short: bool) -> Awaitable[Any]: ...


class Item(NamedTuple):
    """A message or, with a `kind` of notice, a notice, and the cursor after it. The data is one line of JSON.

    `at` is in ms since 1970 UTC: of a message, the effective time of its event.
    """

    cursor: FeedCursor
    data: bytes
    group_id: str | None
    at: int
    is_notice: bool


class Read(NamedTuple):
    """What was read: the selected items, and the cursor after everything that was examined."""

    items: list[Item]
    cursor: FeedCursor


class Feed:
    """One feed, for all readers of a process. Methods raise StoreUnavailable and ReadModelUnavailable."""

    def __init__(self, store: EventStore, log: FeedLog, run: Runner) -> None:
        self._store = store
        self._log = log
        self._run = run
        self._loading = asyncio.Lock()
        self._loads: set[asyncio.Task[Batch]] = set()

    async def read(self, cursor: FeedCursor, state: FeedState, selection: Selection, limit: int = BATCH_SIZE) -> Read:
        """Return the next items up to what `state` says there is; none, with the same cursor, if nothing is left.

        Raises HistoryChanged if the state that was read up to the cursor must be read again.
        """
        if cursor.notice < state.history_change:
            raise HistoryChanged("groups are folded by other rules now")
        if cursor.notice < state.notice:
            return await self._read_notices(cursor, selection)
        entries = self._log.kept(cursor.position, state.reached, state.notice, limit)
        if not entries and cursor.position < state.reached:
            batch = await self._load(cursor.position, state)
            if batch.notice != state.notice:
                return Read([], cursor)
            entries = [entry for entry in batch.entries if entry.cursor.position <= state.reached][:limit]
        items = [
            _item(entry.cursor, entry.message)
            for entry in entries
            if entry.message and selection.includes(entry.message)
        ]
        return Read(items, entries[-1].cursor if entries else cursor)

    async def _load(self, after: int, state: FeedState) -> Batch:
        # A reader that goes away must not release the lock while a thread is still at work.
        load = asyncio.create_task(self._load_next(after, state))
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)
        return await asyncio.shield(load)

    async def _load_next(self, after: int, state: FeedState) -> Batch:
        async with self._loading:
            if kept := self._log.kept(after, state.reached, state.notice):
                return Batch(state.notice, 0, kept)
            batch: Batch = await self._run(self._log.load, after, is_short=False)
            self._log.keep(batch)
            return batch

    async def _read_notices(self, cursor: FeedCursor, selection: Selection) -> Read:
        notices = await self._run(self._store.notices.after, cursor.notice, MAX_NOTICES, is_short=True)
        items = []
        for notice in notices:
            cursor = cursor._replace(notice=notice.number)
            if notice.kind == "history.changed":
                raise HistoryChanged("groups are folded by other rules now")
            if selection.includes_notice(notice):
                data = _encode(notice_message(notice, cursor))
                items.append(Item(cursor, data, notice.subject, notice.at, is_notice=True))
        return Read(items, cursor)


def read_state(store: EventStore, queries: Queries) -> FeedState:
    """Return how far the feeds go. Raises StoreUnavailable and ReadModelUnavailable."""
    # The notices are read first: their effects are then already in the state that is read.
    notice, history_change = store.notices.newest(), store.notices.newest_history_change()
    with queries.session() as session:
        reached = session.reached()
    head = max(reached, store.head())
    lacking = store.read(reached, 1) if head > reached else []
    lag_ms = max(0, now_ms() - lacking[0].event.recorded_at) if lacking else 0
    return FeedState(reached, notice, history_change, head, lag_ms)


def _item(cursor: FeedCursor, message: Message) -> Item:
    return Item(cursor, message.data, message.group_id, message.occurred_at, is_notice=False)
