"""Two versions of the projections at work on one database, as while servers are replaced one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from projector.bootstrap import PROJECTIONS, open_read_model, open_stores
from projector.domain.events import GroupFilled, MembersJoined, MembersLeft
from projector.event_store import Candidate
from projector.settings import Settings
from projector.subscription import Subscription

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.slow  # every test here starts processes


def fill(database: Path, count: int) -> None:
    stores = open_stores(Settings(database_path=str(database)))
    for first in range(0, count, 1000):
        batch = []
        for number in range(first, first + 1000):
            about = {"group_id": f"g{number % 40}", "occurred_at": 1 + number * 7919 % count, "recorded_at": number + 1}
            members = (f"u{number % 613}", f"u{number % 17}")
            event = (
                MembersLeft(**about, members=members)
                if number % 3 == 0
                else GroupFilled(**about)
                if number % 11 == 0
                else MembersJoined(**about, members=members)
            )
            batch.append(Candidate(event, None))
        stores.events.append(batch)
    stores.events.close()


class Watched:
    """A projection that notes what it applies; of a version of its own, if given."""

    def __init__(self, projection: Any, applied: dict[str, list[int]], version: int | None = None) -> None:
        self.name, self.version = projection.name, version or projection.version
        self._projection, self._applied = projection, applied

    def apply(self, tables: Any, batch: Any) -> None:
        self._applied.setdefault(self.name, []).extend(one.position for one in batch)
        self._projection.apply(tables, batch)


def test_while_processes_of_two_versions_run_neither_skips_nor_spoils_what_the_other_projects(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    fill(database, 1_000)
    settings = Settings(database_path=str(database))
    stores, read_models = open_stores(settings), [open_read_model(settings) for _ in range(2)]
    by_old: dict[str, list[int]] = {}
    by_new: dict[str, list[int]] = {}
    old = Subscription(stores.events, read_models[0], [Watched(one, by_old) for one in PROJECTIONS])
    assert old.catch_up() == 1_000
    new = Subscription(
        stores.events,
        read_models[1],
        [Watched(one, by_new, 2 if one.name == "profile" else None) for one in PROJECTIONS],
    )
    stores.events.append([Candidate(MembersJoined(group_id="g1", occurred_at=1, recorded_at=1, members=("u1",)), None)])
    assert old.catch_up() == 1_001
    assert new.catch_up() == 1_001
    assert by_old == {name: [*range(1, 1_001 + (name != "profile"))] for name in ("membership", "profile", "fullness")}
    assert by_new == {"profile": [*range(1, 1_002)]}
    for opened in (*read_models, stores.events):
        opened.close()
