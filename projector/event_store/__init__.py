"""The event store: append a batch once, read after a position, know the head. Only redaction changes stored events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from projector.domain.events import Event, Recorded

if TYPE_CHECKING:
    from projector.event_store.forgotten import Forgotten
    from projector.event_store.mapper import EventMapper
    from projector.event_store.notices import Notices
    from projector.event_store.reconciliations import Reconciliations


class StoreUnavailable(Exception):
    """The store did not complete the request, and kept nothing of it. The text gives the reason."""


class StoreUnreadable(StoreUnavailable):
    """The stored events cannot be decoded with these settings of compressor and cipher."""


class OtherApp(StoreUnavailable):
    """The store, or the spool, holds the events of another app."""

    def __init__(self, holder: str, recorded: int, sdk_app_id: int, setting: str) -> None:
        super().__init__(
            f"{holder} belongs to SDKAppID {recorded}, but PROJECTOR_SDK_APP_ID is {sdk_app_id}; correct it, or set"
            f" {setting} to another one"
        )


class Candidate(NamedTuple):
    """An event to append, unless one with the same identity is stored; with identity None, append it in any case."""

    event: Event
    identity: bytes | None


class Appended(NamedTuple):
    """The position of an event, None while it waits in the spool.

    `repeated` tells that it had been stored before, under the same identity.
    """

    position: int | None
    repeated: bool


class GroupRange(NamedTuple):
    """Group ids from `first` on and below `end`; None is no bound."""

    first: str = ""
    end: str | None = None


ALL_GROUPS: Final = GroupRange()


class EventReader(Protocol):
    """Reads events. All methods raise StoreUnavailable."""

    def read(self, after: int, limit: int) -> list[Recorded]:
        """Return up to `limit` events of all groups after a position, in order; fewer if they are large."""

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        """Return up to `limit` events of one group after a version, in order; fewer if they are large."""

    def read_streams(self, through: int, groups: GroupRange = ALL_GROUPS) -> Iterator[list[Recorded]]:
        """Yield all events up to a position, stream by stream, ordered by group id and version.

        They come in batches of some thousand; a batch may end, and begin, in the middle of a stream.
        """


class EventStore(EventReader, Protocol):
    """The methods of every store. All may be called from any thread, and raise StoreUnavailable."""

    @property
    def mapper(self) -> EventMapper:
        """Maps events to their stored form, and back."""

    def require_decodable(self) -> None:
        """Raise StoreUnreadable if neither the first nor the last event can be decoded."""

    def require_app(self, sdk_app_id: int) -> None:
        """Record that the events are of this app. Raises OtherApp if those of another have been recorded.

        If the store is unavailable now, this is made up for before the first append.
        """

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        """Make the batch durable in one transaction; positions are contiguous, in the given order."""

    def split(self, through: int, count: int) -> list[GroupRange]:
        """Return at most `count` ranges of group ids, each with about as many events up to a position."""

    def damage(self) -> list[str]:
        """Return a line for each damage that the database finds in its own files, as far as it can check them."""

    def dangling_identities(self) -> int:
        """Return how many identities refer to no event, or to one to which another identity refers."""

    @property
    def forgotten(self) -> Forgotten:
        """The forgotten accounts; whatever is appended names them by their pseudonyms."""

    @property
    def reconciliations(self) -> Reconciliations:
        """The runs that compared the groups with the vendor's REST API."""

    def redact(self, positions: Sequence[int], redacted: Callable[[Event], Event]) -> None:
        """Replace the events at these positions by what `redacted` returns for them.

        The fingerprints that the events had are kept. `redacted` is not called inside a transaction.
        """

    def is_redacted(self, position: int) -> bool:
        """Return whether the event at a position was redacted after it was appended."""

    def redactions(self, after: int, last: int) -> dict[int, bytes]:
        """Return the fingerprints that redacted events had, by position, after one position and up to another."""

    @property
    def notices(self) -> Notices:
        """The changes that no event causes."""

    def erase_traces(self) -> bool:
        """Remove what was redacted from the database's files; return False if others use them at the moment."""

    def head(self) -> int:
        """Return the position of the newest event, 0 if there is none."""

    def watching(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `wake`, in a thread of its own, whenever any process has appended."""

    def close(self) -> None:
        """Close all connections."""


def ranges_between(group_ids: Iterable[str | None]) -> list[GroupRange]:
    """Return the ranges into which these group ids divide all groups."""
    bounds = sorted({group_id for group_id in group_ids if group_id})
    return [GroupRange(first, end) for first, end in zip(["", *bounds], [*bounds, None], strict=True)]
