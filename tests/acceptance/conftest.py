from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.running import Server, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for a module, whose tests use groups of their own. No test may make it print a traceback."""
    with serving(tmp_path_factory.mktemp("server") / "events.db") as running:
        yield running
        assert not [line for line in running.raw_log if "Traceback" in line]


@pytest.fixture(scope="module")
def new_group() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"group {next(numbers)}"
