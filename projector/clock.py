"""Moments in ms since 1970 UTC, and as RFC 3339 text."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_LENGTH: Final = len("2022-12-09T")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def to_rfc3339(ms: int) -> str:
    """Return ms since 1970 UTC as RFC 3339 with milliseconds: `2022-12-09T08:26:54.123Z`."""
    day, rest = divmod(ms, 86_400_000)
    seconds, rest = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    return f"{_date(day)}T{minutes // 60:02}:{minutes % 60:02}:{second:02}.{rest:03}Z"


def from_rfc3339(text: str) -> int:
    """Return an RFC 3339 time with its offset in ms since 1970 UTC, rounded down. Raises ValueError."""
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None or len(text) <= _DATE_LENGTH:
        raise ValueError(text)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(maxsize=1_000)
def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()
