from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import kinds
from tests.postgresql import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgresql import PostgreSQL


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have a module's tests run on SQLite, and then again on PostgreSQL."""
    kinds.use(request.getfixturevalue("postgresql") if request.param == "postgresql" else None)
    yield request.param
    kinds.use(None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running() as server:
        yield server
