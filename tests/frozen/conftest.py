from __future__ import annotations

import pytest

from tests.frozen.frozen import VERSIONS, Frozen


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: version.folder.name)
def version(request: pytest.FixtureRequest) -> Frozen:
    return request.param


@pytest.fixture(scope="module")
def old(version: Frozen, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of processes of that version."""
    return version.unpack_wheel(tmp_path_factory.mktemp("wheel"))
