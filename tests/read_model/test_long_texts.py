"""Texts of any length are projected, rebuilt and found; only an event that the database refuses is set aside."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from projector.bootstrap import PROJECTIONS, open_events, open_generations, open_queries
from projector.domain import limits
from projector.event_store import Candidate
from projector.read_model import ReadModelUnavailable
from projector.read_model.group_filter import GroupFilter
from projector.replay.replay import Replay
from projector.subscription import Subscription
from tests import kinds
from tests.domain import facts as f
from tests.kinds import settings
from tests.processes.databases import begin_read_model, checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from projector.domain.events import Event
    from projector.read_model.rows import SetAside

pytestmark = pytest.mark.usefixtures("kind", "unlimited")
only_postgresql = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)

_random = random.Random(7)


def incompressible(length: int) -> str:
    return "".join(chr(_random.randrange(0x4E00, 0x9FFF)) for _ in range(length))


LONG = incompressible(20_000)
CONTROLS = "".join(_random.choice("\x00\x01") for _ in range(10_000))
NAMES = {
    "long": LONG,
    "longer": LONG + "!",
    "other": LONG[:150] + "other",
    "controls": "a" * 60 + "\x00" + CONTROLS,
    "ones": "\x01" * 100 + LONG,
    "nul": "\x00",
    "short": LONG[:1],
    "none": None,
}


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts of any length pass the folds: read models hold them, whatever the limits are."""
    monkeypatch.setattr(limits, "MAX_BYTES", dict.fromkeys(limits.MAX_BYTES, 2**20))


def store_events(database: Path, *events: Event) -> None:
    with closing(open_events(settings(database))) as store:
        store.append([Candidate(event, None) for event in events])


def project_all(database: Path) -> list[SetAside]:
    """Project everything, and return the events set aside."""
    with (
        closing(open_events(settings(database))) as store,
        closing(open_generations(settings(database)).live()) as read_model,
    ):
        Subscription(store, read_model, PROJECTIONS).catch_up()
        with read_model.read_transaction() as now:
            return now.set_aside_events()


def group_ids(database: Path, group_filter: GroupFilter) -> list[str]:
    with closing(open_queries(settings(database))) as queries, queries.session() as session:
        return [state.group_id for state in session.groups(group_filter, "", 100)]


def replay(database: Path) -> int:
    with closing(open_events(settings(database))) as store:
        return Replay(store, open_generations(settings(database)), PROJECTIONS).rebuild().differences


def test_names_and_types_of_any_length_are_projected_rebuilt_and_found_exactly(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    begin_read_model(database).close()
    store_events(database, *(f.created(0, group_id=f"g-{key}", name=name) for key, name in NAMES.items()))
    types = {"t1": LONG, "t2": LONG[:-1], "t3": LONG[:200], "t4": "\x00" + LONG, "t5": "\x01" * 100, "t6": "Public"}
    store_events(database, *(f.created(0, group_id=key, group_type=name) for key, name in types.items()))
    assert project_all(database) == []
    for _ in range(2):
        for name in filter(None, NAMES.values()):
            for length in {1, 2, 60, 61, 62, 99, 100, 101, 150, 151, 199, 200, 201, 5_000, len(name)}:
                expected = sorted(f"g-{key}" for key, other in NAMES.items() if (other or "").startswith(name[:length]))
                assert group_ids(database, GroupFilter(prefix=name[:length])) == expected
        assert group_ids(database, GroupFilter(prefix=LONG[:300] + "x")) == []
        for key, name in types.items():
            assert group_ids(database, GroupFilter(type=name)) == [key]
        assert group_ids(database, GroupFilter(type=LONG[:100])) == []
        assert replay(database) == 0


@only_postgresql
def test_a_text_is_looked_up_in_an_index(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    begin_read_model(database).close()
    with kinds.read_model(database) as connection:
        connection.execute("SET enable_seqscan = off")
        condition = "substr(profiles.name, 1, 200) >= 'a' AND substr(profiles.name, 1, 200) < 'b'"
        plan = connection.execute(f"EXPLAIN SELECT group_id FROM profiles WHERE {condition}").fetchall()
        assert any("profiles_by_name" in line for (line,) in plan), plan


def test_a_missing_table_halts_the_projections_and_is_blamed_on_no_event(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    begin_read_model(database).close()
    store_events(database, f.created(0))
    with kinds.read_model(database) as connection:
        connection.execute("ALTER TABLE profiles RENAME TO renamed")
        with pytest.raises(ReadModelUnavailable, match="profiles"):
            project_all(database)
        connection.execute("ALTER TABLE renamed RENAME TO profiles")
    assert project_all(database) == []
    assert group_ids(database, GroupFilter()) == [f.GROUP]


@only_postgresql
def test_an_event_whose_row_the_database_refuses_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    begin_read_model(database).close()
    with kinds.read_model(database) as connection:
        connection.execute("CREATE INDEX narrow ON profiles (evidence)")
    store_events(database, f.created(0, name="before"), f.profile(1, name=LONG), f.created(2, group_id="after"))
    (event,) = project_all(database)
    assert (event.projection, event.position) == ("groups", 2)
    assert psycopg.errors.ProgramLimitExceeded.__name__ in event.reason
    assert set(checkpoints(database).values()) == {3}
    assert group_ids(database, GroupFilter()) == ["@TGS#1", "after"]
    assert replay(database) > 0, "rebuilt without the narrow index"
    assert project_all(database) == []
    assert group_ids(database, GroupFilter(prefix=LONG)) == [f.GROUP]
