"""Forgetting users: pseudonyms replace their ids in everything that is stored.

Each step can be repeated, and rosters are right after any of them: `RenamedEvents` gives every read model the names it
was built with.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from projector.domain.events import Event, Recorded, UndecodableEvent
from projector.domain.redaction import redact
from projector.event_store import EventStore, StoreUnavailable
from projector.event_store.notices import MAX_GROUPS, MAX_POSITIONS, Announcement, group_resets
from projector.event_store.pseudonyms import Pseudonyms, redact_request
from projector.event_store.quarantine import Quarantine, UnreadableRequest
from projector.event_store.spool import Spool

_BATCH_SIZE: Final = 2_000
_TIMEOUT_S: Final = 30
_RETRY_S: Final = 0.1

_T = TypeVar("_T")


class TracesRemain(Exception):
    """Ids are still in a log file that others use. The text says where, and what to do."""


class Mentions(NamedTuple):
    """The numbers of events, of their groups, and of callbacks in the quarantine and the spool that mention the users.

    `undecodable` is the number of those that cannot be searched.
    """

    events: int
    groups: int
    undecodable: int
    quarantined: int = 0
    spooled: int = 0


def find_mentions(store: EventStore, accounts: Iterable[str], *, on_progress: Callable[[int], None]) -> Mentions:
    """Search the history for accounts, and change nothing. Raises StoreUnavailable.

    `on_progress` is called with the number of events of each batch.
    """
    redacted = partial(redact, pseudonyms=dict.fromkeys(accounts, ""))
    return _search(store, redacted, on_progress, lambda _, __: None)


def begin(store: EventStore, account: str) -> str:
    """Use a pseudonym for an account in everything stored from now on; return it. Raises StoreUnavailable."""
    return _retry(partial(store.forgotten.begin, account))


def finish(
    store: EventStore,
    quarantine: Quarantine,
    spool: Spool | None,
    *,
    rebuild: Callable[[], None],
    on_progress: Callable[[int], None],
) -> Mentions:
    """Complete all forgettings that have begun, beside running servers; return what was redacted.

    `rebuild` replaces every read model built before by one that knows the pseudonyms only.

    Raises StoreUnavailable, TracesRemain, and what `rebuild` raises; finishing again then continues.
    """
    forgettings, earlier = store.forgotten.unfinished(), store.forgotten.earlier()
    redaction = _Redaction(
        {forgetting.account: forgetting.pseudonym for forgetting in forgettings},
        store.forgotten.pseudonyms() if earlier else Pseudonyms(),
    )
    affected = _Affected(redaction.pseudonyms)
    mentions = _redact_everything(store, quarantine, spool, redaction, affected, on_progress)
    _retry(partial(store.forgotten.finish_earlier, earlier))
    if forgettings:
        rebuild()
    _retry(partial(store.notices.add, affected.announcements(earlier)))
    erase = partial(_erase_traces, store, spool)
    erase()
    _retry(partial(store.forgotten.finish, forgettings))
    erase()
    return mentions


class _Redaction(NamedTuple):
    """The accounts to replace, by id and, where the id is not known any more, by hash."""

    pseudonyms: Mapping[str, str]
    hashed: Pseudonyms

    def event(self, event: Event) -> Event:
        return self.hashed.redacted(redact(event, self.pseudonyms))

    def request(self, request: UnreadableRequest) -> UnreadableRequest:
        return self.hashed.redacted_request(redact_request(request, self.pseudonyms))


class _Affected:
    """The events and groups that followers have to read again: those in which a user has, or had, another name."""

    def __init__(self, pseudonyms: Mapping[str, str]) -> None:
        self._pseudonyms = pseudonyms
        self._positions: dict[str, list[int]] = {pseudonym: [] for pseudonym in pseudonyms.values()}
        self._groups: set[str] = set()

    def add(self, batch: Sequence[Recorded], mentioning: Sequence[Recorded]) -> None:
        """Add a batch, with the events in it that are redacted now; an interrupted run may have redacted others."""
        self._add_groups(mentioning)
        changed = {recorded.position for recorded in mentioning}
        for account, pseudonym in self._pseudonyms.items():
            affected = [
                recorded
                for recorded in batch
                if pseudonym in recorded.event.callback
                or (recorded.position in changed and redact(recorded.event, {account: ""}) is not recorded.event)
            ]
            self._add_groups(affected)
            positions = self._positions[pseudonym]
            positions += [recorded.position for recorded in affected][: MAX_POSITIONS + 1 - len(positions)]

    def announcements(self, earlier: Iterable[str]) -> list[Announcement]:
        """Return what to announce, also for accounts of which only the pseudonym is known."""
        return [
            *(Announcement("user.forgotten", pseudonym, positions) for pseudonym, positions in self._positions.items()),
            *(Announcement("user.forgotten", pseudonym) for pseudonym in earlier),
            *group_resets(self._groups),
        ]

    def _add_groups(self, events: Iterable[Recorded]) -> None:
        if len(self._groups) <= MAX_GROUPS:
            self._groups |= {recorded.event.group_id for recorded in events}


def _redact_everything(
    store: EventStore,
    quarantine: Quarantine,
    spool: Spool | None,
    redaction: _Redaction,
    affected: _Affected,
    on_progress: Callable[[int], None],
) -> Mentions:
    def redact_events(batch: Sequence[Recorded], mentioning: Sequence[Recorded]) -> None:
        affected.add(batch, mentioning)
        if mentioning:
            positions = [recorded.position for recorded in mentioning]
            _retry(partial(store.redact, positions, redaction.event))

    mentions = _search(store, redaction.event, on_progress, redact_events)
    quarantined = _retry(partial(quarantine.redact, redaction.request))
    undecodable = mentions.undecodable + quarantined.undecodable
    if spool is None:
        return mentions._replace(quarantined=quarantined.redacted, undecodable=undecodable)
    spooled = _retry(partial(spool.redact, redaction.event, redaction.request))
    return Mentions(
        mentions.events,
        mentions.groups,
        undecodable + spooled.undecodable,
        quarantined.redacted,
        spooled.redacted,
    )


def _erase_traces(store: EventStore, spool: Spool | None) -> None:
    """Remove the ids from log files too. Raises StoreUnavailable and TracesRemain."""
    deadline = time.monotonic() + _TIMEOUT_S
    for name, erase in (("database", store.erase_traces), *((("spool", spool.erase_traces),) if spool else ())):
        while not erase():
            if time.monotonic() > deadline:
                raise TracesRemain(
                    f"another process reads the {name}, so its log file may still contain the ids; end it,"
                    " and run `projector forget` again"
                )
            time.sleep(_RETRY_S)


def _retry(act: Callable[[], _T]) -> _T:
    """Repeat an idempotent write that fails because running servers write too, for at most `_TIMEOUT_S`."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return act()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_S)


def _search(
    store: EventStore,
    redacted: Callable[[Event], Event],
    on_progress: Callable[[int], None],
    on_batch: Callable[[Sequence[Recorded], Sequence[Recorded]], None],
) -> Mentions:
    """Search all events up to the head; call `on_batch` with each batch, and the events that redaction changes."""
    head, position, events, undecodable = store.head(), 0, 0, 0
    groups: set[str] = set()
    while position < head and (batch := store.read(position, _BATCH_SIZE)):
        mentioning = [recorded for recorded in batch if redacted(recorded.event) is not recorded.event]
        on_batch(batch, mentioning)
        events += len(mentioning)
        groups |= {recorded.event.group_id for recorded in mentioning}
        undecodable += sum(isinstance(recorded.event, UndecodableEvent) for recorded in batch)
        position = batch[-1].position
        on_progress(len(batch))
    return Mentions(events, len(groups), undecodable)
