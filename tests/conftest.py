from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.postgresql import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running() as server:
        yield server
