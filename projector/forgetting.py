"""Forgetting users: pseudonyms replace their ids in the history and in the quarantine.

Events and requests that arrive later get the pseudonyms too. `Replay.replace_all` rebuilds the read models.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeVar

from projector.domain.events import UndecodableEvent
from projector.domain.redaction import redact
from projector.event_store import EventStore, StoreUnavailable
from projector.event_store.quarantine import Quarantine

_BATCH_SIZE: Final = 2_000
_TIMEOUT_S: Final = 30

_T = TypeVar("_T")


class Mentions(NamedTuple):
    """The numbers of events, of their groups, and of requests in the quarantine that mention the users.

    `undecodable` is the number of events that cannot be searched.
    """

    events: int
    groups: int
    undecodable: int
    quarantined: int = 0


def find_mentions(store: EventStore, accounts: Iterable[str], *, on_progress: Callable[[int], None]) -> Mentions:
    """Search the history for accounts, and change nothing. Raises StoreUnavailable."""
    return _search(store, dict.fromkeys(accounts, ""), on_progress, lambda _: None)


def forget(
    store: EventStore, quarantine: Quarantine, accounts: Iterable[str], *, on_progress: Callable[[int], None]
) -> tuple[Mentions, dict[str, str]]:
    """Replace accounts by pseudonyms, beside running servers; return the mentions and the pseudonyms.

    `on_progress` is called with the number of events of each batch. After an interruption at any point, forgetting
    again completes it.

    Raises StoreUnavailable.
    """
    pseudonyms = {account: _retry(partial(store.forget, account)) for account in accounts}

    def redact_events(positions: list[int]) -> None:
        _retry(partial(store.redact, positions, pseudonyms))

    mentions = _search(store, pseudonyms, on_progress, redact_events)
    return mentions._replace(quarantined=_retry(partial(quarantine.redact, pseudonyms))), pseudonyms


def _retry(act: Callable[[], _T]) -> _T:
    """Repeat an idempotent write that fails because running servers write too, for at most `_TIMEOUT_S`."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return act()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise


def _search(
    store: EventStore,
    pseudonyms: Mapping[str, str],
    on_progress: Callable[[int], None],
    on_mentions: Callable[[list[int]], None],
) -> Mentions:
    """Search all events up to the head; call `on_mentions` with the positions of those that mention an account."""
    head, position, events, undecodable = store.head(), 0, 0, 0
    groups: set[str] = set()
    while position < head and (batch := store.read(position, _BATCH_SIZE)):
        mentioning = [recorded for recorded in batch if redact(recorded.event, pseudonyms) is not recorded.event]
        if mentioning:
            on_mentions([recorded.position for recorded in mentioning])
        events += len(mentioning)
        groups |= {recorded.event.group_id for recorded in mentioning}
        undecodable += sum(isinstance(recorded.event, UndecodableEvent) for recorded in batch)
        position = batch[-1].position
        on_progress(len(batch))
    return Mentions(events, len(groups), undecodable)
