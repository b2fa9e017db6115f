"""The length of tests that may run as long as wanted: `ROUNDS=200 pytest …` makes a campaign of a test."""

from __future__ import annotations

import os


def rounds(default: int) -> int:
    return int(os.environ.get("ROUNDS", default))


def summary(line: str) -> None:
    """Report the extent of a campaign; `pytest -s` shows it."""
    print(line)  # noqa: T201 - read at the end of a campaign
