"""The difference between the vendor's clock and this machine's, from the dates of answers."""

from email.utils import parsedate_to_datetime
from typing import Final

MAX_PLAUSIBLE_MS: Final = 5_000
"""A greater difference is worth a warning: callbacks are ordered by the vendor's clock, and received by ours."""


class VendorClock:
    """Bounds of (vendor's clock - ours) in ms, narrowed by every answer; none are known at first."""

    def __init__(self) -> None:
        self._low: int | None = None
        self._high: int | None = None

    @property
    def difference_ms(self) -> int:
        """The difference, estimated from below; 0 if no answer had a date."""
        return self._low or 0

    def learn(self, date: str | None, *, asked_at: int, answered_at: int) -> None:
        """Take in the `Date` of an answer, in whole seconds, to a request between two moments of our clock, in ms."""
        if (vendor := _milliseconds(date)) is None:
            return
        low, high = vendor - answered_at, vendor + 1_000 - asked_at
        if self._low is not None and self._high is not None and max(low, self._low) < min(high, self._high):
            low, high = max(low, self._low), min(high, self._high)
        # Bounds that contradict the earlier ones replace them: a clock was set.
        self._low, self._high = low, high

    def floor(self, asked_at: int) -> int:
        """Return a moment of the vendor's clock no later than our moment `asked_at`."""
        return asked_at + self.difference_ms


def _milliseconds(date: str | None) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp()) * 1_000 if date else None
    except (ValueError, TypeError, OverflowError):
        return None
