"""The event store: append a batch once, read after a position, know the head. Only who is forgotten is changed."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from projector.domain.events import Event, Recorded
    from projector.event_store.mapper import EventMapper


_T = TypeVar("_T")

_STREAM_BATCH_SIZE: Final = 500
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""A thousand events of the usual size are below one mebibyte; one alone may be larger than this."""


class StoreUnavailable(Exception):
    """The store did not take or give what was asked; nothing of the batch was kept. The text says why."""


class QuarantineFull(StoreUnavailable):
    """As many requests wait in the quarantine as may."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"the quarantine is full: {waiting} callbacks wait in it; see `projector quarantine list`")


class Candidate(NamedTuple):
    """An event to append, unless one with the same identity is there already (None: always append)."""

    event: Event
    identity: bytes | None


class Appended(NamedTuple):
    """Where the event is. `repeated` says that it was there before, under the same identity.

    Position 0 says that it waits in the spool, and will be appended once, unless it was there before.
    """

    position: int
    repeated: bool


class Quarantined(NamedTuple):
    """An authentic request that could not be read as a callback, kept as it came.

    Times are in ms since 1970 UTC; `times` counts deliveries of the same bytes; `position` is that of the event
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


class GroupRange(NamedTuple):
    """A range of group ids: from the first up to, but without, the second; None is the end."""

    first: str = ""
    end: str | None = None


ALL_GROUPS: Final = GroupRange()


class EventStore(Protocol):
    """What every store does. All methods may be called from any thread and raise StoreUnavailable."""

    @property
    def mapper(self) -> EventMapper:
        """What turns events into what is stored, and back."""

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        """Make the batch durable in one transaction; positions are contiguous, in the order given."""

    def read(self, after: int, limit: int) -> list[Recorded]:
        """Return up to `limit` events of all groups behind a position, in order: fewer if they are large."""

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        """Return up to `limit` events of one group behind a version, in order: fewer if they are large."""

    def read_streams(self, through: int, bounds: GroupRange = ALL_GROUPS) -> Iterator[list[Recorded]]:
        """Give all events up to a position, one stream after the other, in order of group id and of version.

        They come in lists of some thousand; a list may end, and begin, in the middle of a stream.
        """

    def split(self, through: int, parts: int) -> list[GroupRange]:
        """Return ranges of group ids, as many as parts or fewer, each with about as many events up to a position."""

    def dangling_identities(self) -> int:
        """Return how many identities of callbacks stand at no event, or at one at which another stands."""

    def forget(self, account: str) -> str:
        """Write a pseudonym instead of an account in all that is appended, or quarantined, from now on; return it.

        What was stored before stays as it is; see `redact`. The same account always has the same pseudonym.
        """

    def redact(self, positions: Sequence[int], names: Mapping[str, str]) -> None:
        """Write pseudonyms instead of accounts in the events at these positions, in one transaction.

        What an event was is kept as its fingerprint.
        """

    def redactions(self) -> dict[int, bytes]:
        """Return the fingerprints that redacted events had, by position."""

    def head(self) -> int:
        """Return the position of the newest event, 0 if there is none."""

    def watching(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `wake`, in a thread of its own, when anybody has appended, if the store is one that can tell."""

    def close(self) -> None:
        """Let go of every connection."""


def ranges_between(ends: Iterable[str | None]) -> list[GroupRange]:
    """Return the ranges that these group ids part all groups into."""
    inner = sorted({end for end in ends if end})
    return [GroupRange(first, end) for first, end in zip(["", *inner], [*inner, None], strict=True)]


def digest(command: str | None, body: bytes) -> bytes:
    """Return what makes a request in the quarantine the same as another: its command and its bytes."""
    return blake2b(f"{command}\n".encode() + body, digest_size=16).digest()


def bounded(things: Iterable[_T], size_of: Callable[[_T], int]) -> list[_T]:
    """Return the first of these things, as many as MAX_BATCH_BYTES hold, and the one with which they are more."""
    found, size = [], 0
    for thing in things:
        found.append(thing)
        size += size_of(thing)
        if size > MAX_BATCH_BYTES:
            break
    return found


def history(store: EventStore, after: int, at_once: int) -> Iterator[Recorded]:
    """Give all events behind a position, in order, reading so many at once. Raises StoreUnavailable."""
    while batch := store.read(after, at_once):
        yield from batch
        after = batch[-1].position


def group_history(store: EventStore, group_id: str, after_version: int, at_once: int) -> Iterator[Recorded]:
    """Give one group's events behind a version, in order, reading so many at once. Raises StoreUnavailable."""
    while batch := store.read_group(group_id, after_version, at_once):
        yield from batch
        after_version = batch[-1].version


def stream(store: EventStore, group_id: str, through: int) -> Iterator[list[Recorded]]:
    """Give one group's events up to a position, in order, in lists of some hundred. Raises StoreUnavailable."""
    version = 0
    while batch := store.read_group(group_id, version, _STREAM_BATCH_SIZE):
        if wanted := [recorded for recorded in batch if recorded.position <= through]:
            yield wanted
        if len(wanted) < len(batch):
            return
        version = batch[-1].version


class Quarantine(Protocol):
    """Where authentic but unreadable requests wait, so many at most. All methods may raise StoreUnavailable."""

    def keep(self, *, body: bytes, reason: str, command: str | None, platform: str | None, received_at: int) -> int:
        """Make a request durable and return its id; the same bytes again are counted, not kept twice.

        Raises QuarantineFull.
        """

    def waiting(self, after: int = 0, limit: int = 100) -> list[Quarantined]:
        """Return requests not yet released whose id is greater than `after`, by id."""

    def find(self, quarantine_id: int) -> Quarantined | None:
        """Return one request, released or not."""

    def release(self, quarantine_id: int, position: int) -> None:
        """Note that a request became the event at that position."""

    def drop(self, quarantine_id: int) -> None:
        """Let go of a request for good."""

    def redact(self, names: Mapping[str, str]) -> int:
        """Write pseudonyms instead of accounts in all that is kept, waiting or not; return in how much of it."""

    def count(self) -> int:
        """Return how many requests wait."""


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Have a thread work until the context is left; it is told so by the event that it is given."""
    stopping = threading.Event()
    thread = threading.Thread(target=work, args=(stopping,), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
