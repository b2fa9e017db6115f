"""How long the attacks are that can be as long as one likes: `ROUNDS=200 pytest …` makes a campaign of a test."""

from __future__ import annotations

import os


def rounds(usual: int) -> int:
    return int(os.environ.get("ROUNDS", usual))


def summary(line: str) -> None:
    """Say how much there was of it; `pytest -s` shows it."""
    print(line)  # noqa: T201 - whoever makes a campaign of it reads this
