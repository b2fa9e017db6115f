"""A read model that several processes build, each its range of groups, is the one that a single one builds."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from projector.bootstrap import PROJECTIONS, open_events, open_generations
from projector.event_store import GroupRange, StoreUnavailable, postgres, sqlite
from projector.event_store.reading import history
from projector.read_model import ReadModelUnavailable, buffered_tables
from projector.replay import build as building
from projector.replay.build import Jobs
from projector.replay.replay import Replay
from projector.replay.shard import Shard
from projector.replay.shard_process import build_shard
from tests.kinds import change_events, copied, generations, settings
from tests.processes.databases import rows, write
from tests.processes.traffic import GROUPS
from tests.running import run_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.replay.replay import ReplayResult

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20230101
COUNT = 3_000


@pytest.fixture(scope="module")
def recorded(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("recorded") / "events.db"
    write(database, range(1, COUNT + 1), SEED)
    return database


@pytest.fixture
def database(recorded: Path, tmp_path: Path) -> Path:
    return copied(recorded, tmp_path / "copy")


@pytest.fixture(autouse=True)
def few_events_are_worth_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_MIN_SHARD_EVENTS", 100)


@pytest.fixture
def store(database: Path) -> Iterator[EventStore]:
    store = open_events(settings(database))
    yield store
    store.close()


def built(
    database: Path, store: EventStore, processes: int, open_store: Callable[[], EventStore] | None = None
) -> ReplayResult:
    jobs = Jobs(processes, open_store or partial(open_events, settings(database)))
    return Replay(store, open_generations(settings(database)), PROJECTIONS, jobs=jobs).rebuild()


@pytest.mark.parametrize("processes", [2, 3, 6, 20])
def test_however_many_processes_build_it_is_the_same(database: Path, store: EventStore, processes: int) -> None:
    built(database, store, 1)
    exclusive = rows(database)
    together = built(database, store, processes)
    assert (together.position, together.differences, together.reasons_to_rebuild) == (COUNT, 0, ())
    assert rows(database) == exclusive
    assert len(generations(database)) == 2, "the live one and the one before"


def test_rosters_too_large_to_be_held_are_the_same(
    database: Path, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(database, store, 1)
    held_whole = rows(database)
    monkeypatch.setattr(buffered_tables, "MAX_BUFFERED_MEMBERS", 5)
    for event_store in (sqlite, postgres):
        monkeypatch.setattr(event_store, "STREAMS_BATCH_SIZE", 100)
    monkeypatch.setattr(building, "refold_group", None)  # nothing is to be mended afterwards
    built(database, store, 1)
    assert rows(database) == held_whole


def test_events_that_cannot_be_applied_are_set_aside_in_every_part(database: Path, store: EventStore) -> None:
    change = "UPDATE stored_events SET topic = 'FromTomorrow' WHERE originator_id = '{}' AND originator_version = 7"
    change_events(database, *(change.format(group_id) for group_id in (GROUPS[0], GROUPS[-1])))
    built(database, store, 1)
    exclusive = rows(database)
    assert len(exclusive["set_aside"]) == 2 * len(PROJECTIONS)
    built(database, store, 3)
    together = rows(database)
    without_times = [[row[:3] for row in found["set_aside"]] for found in (exclusive, together)]
    assert without_times[0] == without_times[1]
    assert {**together, "set_aside": []} == {**exclusive, "set_aside": []}


def die() -> EventStore:
    os._exit(9)


def refuse() -> EventStore:
    raise StoreUnavailable("no store for you")


@pytest.mark.parametrize(
    ("open_store", "error", "why"),
    [
        (die, ReadModelUnavailable, "a process that built a shard of the read model died"),
        (refuse, StoreUnavailable, "no store"),
    ],
)
def test_if_a_part_cannot_be_built_the_live_model_stays_and_nothing_is_left_behind(
    database: Path, store: EventStore, open_store: Callable[[], EventStore], error: type[Exception], why: str
) -> None:
    built(database, store, 1)
    before, files = rows(database), generations(database)
    with pytest.raises(error, match=why):
        built(database, store, 2, open_store)
    assert (rows(database), generations(database)) == (before, files)
    assert multiprocessing.active_children() == []


def test_a_helper_ends_when_whoever_asked_for_it_is_gone(database: Path) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    receiver.close()
    with open_generations(settings(database)).begin_rebuild() as fresh:
        shard = Shard(fresh.shard(1), PROJECTIONS, COUNT, GroupRange(GROUPS[1]))
        build_shard(partial(open_events, settings(database)), shard, sender)
    sender.close()


@pytest.mark.parametrize(
    "bounds", [GroupRange(), GroupRange(GROUPS[2]), GroupRange("", GROUPS[3]), GroupRange(GROUPS[1], GROUPS[4])]
)
@pytest.mark.parametrize("through", [1, 1_234, COUNT])
def test_streams_are_the_same_whether_they_are_looked_up_or_sorted(
    store: EventStore, bounds: GroupRange, through: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> list[Recorded]:
        return [one for batch in store.read_streams(through, bounds) for one in batch]

    looked_up = read()
    monkeypatch.setattr(sqlite, "SORTED_FROM", 1)
    assert read() == looked_up
    last = bounds.end or "~"
    expected = [
        one
        for one in history(store, 0, 10_000)
        if one.position <= through and bounds.first <= one.event.group_id < last
    ]
    assert looked_up == sorted(expected, key=lambda one: (one.event.group_id, one.version))


def test_a_log_is_split_into_ranges_that_miss_nothing_and_have_about_as_much_each(store: EventStore) -> None:
    whole = [one for batch in store.read_streams(COUNT) for one in batch]
    assert store.split(COUNT, 1) == [GroupRange()]
    for parts in (2, 3, 5):
        ranges = store.split(COUNT, parts)
        events = [[one for batch in store.read_streams(COUNT, bounds) for one in batch] for bounds in ranges]
        assert [one for part in events for one in part] == whole
        assert max(map(len, events)) < COUNT / parts + COUNT / len(GROUPS) * 1.5
    assert len(store.split(COUNT, 100)) <= len(GROUPS) + 1


def test_the_command_takes_how_many_processes_may_build(database: Path) -> None:
    assert run_cli(database, "replay", "--jobs", "2").returncode == 0
    wrong = run_cli(database, "replay", "--jobs", "0")
    assert (wrong.returncode, "--jobs" in wrong.stderr) == (2, True)
