from __future__ import annotations

from tests.acceptance.conftest import new_group, server

__all__ = ["new_group", "server"]
