"""Waiting for a condition, never for time to pass."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import Server

STORE_TIMEOUT_S = 60


def until(holds: Callable[[], object], *, of: Server) -> None:
    """Check a condition until it holds, while the server lives."""
    deadline = time.monotonic() + STORE_TIMEOUT_S
    while not holds():
        assert of.process.poll() is None, "".join(of.raw_log)
        assert time.monotonic() < deadline
