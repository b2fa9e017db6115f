"""The cost of queries in SQLite's steps depends on the size of the page and not on the size of the tables."""

from __future__ import annotations

import sqlite3
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from projector.domain.events import GroupCreated, GroupDismissed, GroupFilled, MembersLeft, Recorded
from projector.projection import project
from projector.projection.groups import GroupsProjection
from projector.read_model.group_filter import GroupFilter
from projector.read_model.sqlite import SQLiteDraft, SQLiteQueries, SQLiteReadModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from projector.domain.events import Event
    from projector.read_model.query_session import QuerySession

SCANS_OF_THE_PAGE = ("SCAN examined", "SCAN named", "SCAN part", "SCAN groups USING INDEX groups_full")
SMALL, LARGE = 100, 100_000
PROJECTIONS = (GroupsProjection(),)


def fill(read_model: SQLiteReadModel, events: list[Event]) -> None:
    with read_model.transaction() as work:
        after = work.checkpoints()["groups"].position
        batch = [Recorded(after + place, event) for place, event in enumerate(events, 1)]
        project(work, PROJECTIONS, batch, now_ms=0)
        assert work.set_aside_events() == []


def created(path: str) -> SQLiteReadModel:
    SQLiteDraft.create(path, {projection.name: projection.version for projection in PROJECTIONS}, 0).finish()
    return SQLiteReadModel(path)


def users(first: int, count: int) -> tuple[str, ...]:
    return tuple(f"user{number:07}" for number in range(first, first + count))


@pytest.fixture(scope="module")
def rosters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteQueries]:
    """A small group, a large one, and one that is small because 100,000 users have left it."""
    path = str(tmp_path_factory.mktemp("rosters") / "read_model.db")
    read_model = created(path)
    times = {"occurred_at": 1670574414123, "recorded_at": 1670574414123}
    later = {"occurred_at": 1670574414124, "recorded_at": 1670574414124}
    fill(
        read_model,
        [
            GroupCreated(group_id="small", **times, members=users(0, SMALL)),
            GroupCreated(group_id="large", **times, members=users(0, LARGE)),
            GroupCreated(group_id="left", **times, members=users(0, LARGE)),
            MembersLeft(group_id="left", **later, members=users(SMALL // 2, LARGE - SMALL)),
        ],
    )
    read_model.close()
    queries = SQLiteQueries(path)
    yield queries
    queries.close()


def steps(queries: SQLiteQueries, query: Callable[[QuerySession], Any]) -> int:
    """Return the approximate number of virtual-machine steps that a query takes, in tens."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    with queries.session() as session:
        queries._file.connection().set_progress_handler(tick, 10)
        query(session)
        queries._file.connection().set_progress_handler(None, 0)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("group_id", ["large", "left"])
@pytest.mark.parametrize("after", ["", "user0000010", "user0000049", "user0090000"])
def test_a_page_of_a_roster_costs_the_same_however_large_the_roster_is_or_was(
    rosters: SQLiteQueries, group_id: str, after: str
) -> None:
    of_small = steps(rosters, lambda session: session.roster("small", "", 50))
    assert of_small > 20
    assert steps(rosters, lambda session: session.roster(group_id, after, 50)) <= of_small * 1.1


@pytest.mark.slow
def test_a_group_and_a_member_cost_the_same_however_large_the_roster_is(rosters: SQLiteQueries) -> None:
    for query in (
        lambda group_id: lambda session: session.group(group_id),
        lambda group_id: lambda session: session.member(group_id, "user0000007"),
    ):
        assert steps(rosters, query("large")) <= steps(rosters, query("small")) * 1.1


@pytest.mark.slow
def test_a_page_of_groups_costs_what_it_shows_whatever_it_is_filtered_by(tmp_path: Path) -> None:
    costs_of = {}
    for count in (1_000, 20_000):
        path = str(tmp_path / f"{count}.db")
        read_model = created(path)
        events: list[Event] = []
        for number in range(count):
            rare = number % (count // 10) == 5
            about = {"group_id": f"g{number:06}", "recorded_at": 1, "group_type": "Rare" if rare else "Public"}
            name = f"{'rare' if rare else 'name'} {number}"
            events.append(GroupCreated(**about, occurred_at=1_000 + number, name=name))
            if rare:
                full = number % (count // 5) == 5
                events.append((GroupFilled if full else GroupDismissed)(**about, occurred_at=900_000 + number))
        fill(read_model, events)
        read_model.close()
        queries = SQLiteQueries(path)
        conditions = [
            GroupFilter(),
            GroupFilter(type="Public", status="active"),
            GroupFilter(is_full=False),
            GroupFilter(type="Rare"),
            GroupFilter(status="dismissed"),
            GroupFilter(is_full=True),
            GroupFilter(is_full=True, type="Rare", status="active"),
            GroupFilter(prefix="rare"),
            GroupFilter(prefix="g0000"),
            GroupFilter(prefix="rare", type="Rare", is_full=True),
        ]
        for condition in conditions:
            with queries.session() as session:
                assert len(session.groups(condition, "", 5)) == 5
            cost = steps(queries, lambda session, condition=condition: session.groups(condition, "", 5))
            costs_of.setdefault(condition, []).append(cost)
        queries.close()
    dearer = {condition: costs for condition, costs in costs_of.items() if costs[1] > costs[0] * 1.1 + 1}
    assert not dearer


def test_no_query_scans_a_table(tmp_path: Path) -> None:
    path = str(tmp_path / "read_model.db")
    created(path).close()
    queries = SQLiteQueries(path)
    statements: list[str] = []
    queries._file.connection().set_trace_callback(statements.append)
    with queries.session() as session:
        for type_, status, is_full, prefix in product((None, "t"), (None, "active"), (None, True, False), (None, "p")):
            session.groups(GroupFilter(type_, status, is_full, prefix), "", 10)
        session.group("g")
        session.roster("g", "", 10)
        session.member("g", "u")
        session.groups_of("u", "", 10)
        session.knows_user("u")
        past = session.stored_states
        past.blocks("g")
        past.snapshot("g", 512)
        past.roster_users("g", 512)
        past.members_until("g", ["u", "v"], 600)
        past.groups_ever_of("u", "", 10)
        past.changes("g", "u", None, 10)
        past.knows_member("g", "u")
    queries._file.connection().set_trace_callback(None)
    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(selects) >= 24 + 5 + 9
    for statement in selects:
        plan = [row[3] for row in queries._file.connection().execute(f"EXPLAIN QUERY PLAN {statement}")]
        scans = [step for step in plan if step.startswith("SCAN") and not step.startswith(SCANS_OF_THE_PAGE)]
        assert not scans, (statement, plan)
    queries.close()


def test_a_query_plan_shows_the_scan_of_a_table() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a)")
    assert connection.execute("EXPLAIN QUERY PLAN SELECT * FROM t").fetchone()[3].startswith("SCAN")
    connection.close()
