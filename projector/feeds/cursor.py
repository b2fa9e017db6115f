"""Cursors of the feeds: a place in the history, with what proves that it is still the same history."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from projector.domain.events import Recorded
from projector.event_store import EventStore
from projector.event_store.fingerprint import fingerprint

BEGINNING: Final = "00000000"
"""The fingerprint at position 0."""

_LENGTH: Final = len(BEGINNING)
_MAX_DIGITS: Final = 19
_MAX_POSITION: Final = 2**63 - 1
_CURSOR: Final = re.compile(rf"([0-9]{{1,{_MAX_DIGITS}}})-([0-9a-f]{{{_LENGTH}}})-([0-9]{{1,{_MAX_DIGITS}}})", re.ASCII)


class HistoryChanged(Exception):
    """The history is not the one that a cursor is from: state that was read before has to be read again."""


class FeedCursor(NamedTuple):
    """The event after which to go on, with the beginning of its fingerprint, and the newest notice read."""

    position: int
    fingerprint: str
    notice: int

    def __str__(self) -> str:
        return f"{self.position}-{self.fingerprint}-{self.notice}"


def parse_cursor(text: str) -> FeedCursor | int:
    """Return a cursor, or a bare position. Raises ValueError."""
    if match := _CURSOR.fullmatch(text):
        return FeedCursor(_number(match[1]), match[2], _number(match[3]))
    return _number(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= _MAX_POSITION):
        raise ValueError(text)
    return int(text)


def short_fingerprint(recorded: Recorded, redactions: dict[int, bytes]) -> str:
    """Return the beginning of the fingerprint that an event was appended with."""
    return (redactions.get(recorded.position) or fingerprint(recorded)).hex()[:_LENGTH]


class Cursors:
    """Makes cursors, and proves them. All methods raise StoreUnavailable."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._newest = (0, BEGINNING)

    def at(self, position: int, notice: int) -> FeedCursor:
        """Return the cursor after the event at a position, which must exist unless it is 0."""
        known, found = self._newest
        if known != position:
            found = self._fingerprint(position) or BEGINNING
            self._newest = (position, found)
        return FeedCursor(position, found, notice)

    def of(self, cursor: FeedCursor | int, newest_notice: int, newest_history_change: int) -> FeedCursor:
        """Return a cursor that was sent by a reader. A bare position proves nothing, and has read every notice.

        Raises HistoryChanged.
        """
        if isinstance(cursor, int):
            return FeedCursor(cursor, self._fingerprint(cursor) or BEGINNING, newest_notice)
        if not newest_history_change <= cursor.notice <= newest_notice:
            raise HistoryChanged("groups are folded by other rules now, or an older backup was restored")
        is_unproven = cursor.fingerprint == BEGINNING  # of a position where there was no event yet
        if not is_unproven and self._fingerprint(cursor.position) != cursor.fingerprint:
            raise HistoryChanged("another event has this position: an older backup was restored")
        return cursor

    def _fingerprint(self, position: int) -> str | None:
        if not position:
            return BEGINNING
        for recorded in self._store.read(position - 1, 1):
            return short_fingerprint(recorded, self._store.redactions(position - 1, position))
        return None
