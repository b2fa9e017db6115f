from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.event_store.databases import OPENERS, Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=OPENERS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    there = Database(request.param, tmp_path)
    yield there
    there.close()
