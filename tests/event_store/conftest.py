from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.event_store.databases import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    there = Database(request.param, _locations(request, tmp_path))
    yield there
    there.close()


def _locations(request: pytest.FixtureRequest, directory: Path) -> Iterator[str]:
    """Give one empty database after the other."""
    while request.param == "postgresql":
        yield request.getfixturevalue("postgresql").new_database()
    for number in count():
        yield str(directory / f"events{number}.db")
