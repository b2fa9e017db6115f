"""Forgetting people: their ids leave the history and the quarantine, and pseudonyms stand in their stead.

What is appended meanwhile, and ever after, has pseudonyms too. The read models are built anew by `Replay.replace_all`.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from projector.domain.events import UndecodableEvent
from projector.domain.redaction import redact
from projector.event_store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from projector.event_store import EventStore, Quarantine

_BATCH_SIZE: Final = 2_000
_TIMEOUT_S: Final = 30

_T = TypeVar("_T")


class Mentions(NamedTuple):
    """Where people are named: in so many events of so many groups, and in so many entries of the quarantine.

    `undecodable` counts the events of which nobody can tell.
    """

    events: int
    groups: int
    undecodable: int
    quarantined: int = 0


def find_mentions(store: EventStore, accounts: Iterable[str], *, on_progress: Callable[[int], None]) -> Mentions:
    """Return where accounts are named in the history, and change nothing. Raises StoreUnavailable."""
    return _search(store, dict.fromkeys(accounts, ""), on_progress, lambda _: None)


def forget(
    store: EventStore, quarantine: Quarantine, accounts: Iterable[str], *, on_progress: Callable[[int], None]
) -> tuple[Mentions, dict[str, str]]:
    """Write pseudonyms instead of accounts, beside running servers; return where, and the pseudonyms.

    `on_progress` is told how many more events were looked at. Cut short at any point, it is done by doing it again.

    Raises StoreUnavailable.
    """
    names = {account: _patiently(partial(store.forget, account)) for account in accounts}
    found = _search(store, names, on_progress, lambda positions: _patiently(partial(store.redact, positions, names)))
    return found._replace(quarantined=_patiently(partial(quarantine.redact, names))), names


def _patiently(act: Callable[[], _T]) -> _T:
    """Do what may be done again, and again while receivers write: they are in a hurry, and this is not."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return act()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise


def _search(
    store: EventStore,
    names: Mapping[str, str],
    on_progress: Callable[[int], None],
    act: Callable[[list[int]], None],
) -> Mentions:
    head, position, events, undecodable = store.head(), 0, 0, 0
    groups: set[str] = set()
    while position < head and (batch := store.read(position, _BATCH_SIZE)):
        mentioning = [one for one in batch if redact(one.event, names) is not one.event]
        if mentioning:
            act([one.position for one in mentioning])
        events += len(mentioning)
        groups |= {one.event.group_id for one in mentioning}
        undecodable += sum(isinstance(one.event, UndecodableEvent) for one in batch)
        position = batch[-1].position
        on_progress(len(batch))
    return Mentions(events, len(groups), undecodable)
