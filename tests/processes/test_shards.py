"""A read model built by several processes, a range of groups each, equals the one built by a single process."""

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
from projector.replay import build
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
def use_a_process_for_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_MIN_SHARD_EVENTS", 100)


@pytest.fixture
def store(database: Path) -> Iterator[EventStore]:
    store = open_events(settings(database))
    yield store
    store.close()


def rebuild(
    database: Path, store: EventStore, processes: int, open_store: Callable[[], EventStore] | None = None
) -> ReplayResult:
    jobs = Jobs(processes, open_store or partial(open_events, settings(database)))
    return Replay(store, open_generations(settings(database)), PROJECTIONS, jobs=jobs).rebuild()


@pytest.mark.parametrize("processes", [2, 3, 6, 20])
def test_the_read_model_is_the_same_however_many_processes_build_it(
    database: Path, store: EventStore, processes: int
) -> None:
    rebuild(database, store, 1)
    expected = rows(database)
    result = rebuild(database, store, processes)
    assert (result.position, result.differences, result.reasons_to_rebuild) == (COUNT, 0, ())
    assert rows(database) == expected
    assert len(generations(database)) == 2, "the live and the previous one"


def test_rosters_too_large_to_be_buffered_are_the_same(
    database: Path, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(database, store, 1)
    expected = rows(database)
    monkeypatch.setattr(buffered_tables, "MAX_BUFFERED_MEMBERS", 5)
    for event_store in (sqlite, postgres):
        monkeypatch.setattr(event_store, "STREAMS_BATCH_SIZE", 100)
    monkeypatch.setattr(build, "refold_group", None)  # no group is to be refolded afterwards
    rebuild(database, store, 1)
    assert rows(database) == expected


def test_events_that_cannot_be_applied_are_set_aside_in_every_shard(database: Path, store: EventStore) -> None:
    change = "UPDATE stored_events SET topic = 'FromTomorrow' WHERE originator_id = '{}' AND originator_version = 7"
    change_events(database, *(change.format(group_id) for group_id in (GROUPS[0], GROUPS[-1])))
    rebuild(database, store, 1)
    expected = rows(database)
    assert len(expected["set_aside"]) == 2 * len(PROJECTIONS)
    rebuild(database, store, 3)
    actual = rows(database)
    without_times = [[row[:3] for row in tables["set_aside"]] for tables in (expected, actual)]
    assert without_times[0] == without_times[1]
    assert {**actual, "set_aside": []} == {**expected, "set_aside": []}


def die() -> EventStore:
    os._exit(9)


def refuse() -> EventStore:
    raise StoreUnavailable("the store is closed")


@pytest.mark.parametrize(
    ("open_store", "error", "reason"),
    [
        (die, ReadModelUnavailable, "a process that built a shard of the read model died"),
        (refuse, StoreUnavailable, "the store is closed"),
    ],
)
def test_if_a_shard_cannot_be_built_the_live_model_stays_and_no_remains_are_left(
    database: Path, store: EventStore, open_store: Callable[[], EventStore], error: type[Exception], reason: str
) -> None:
    rebuild(database, store, 1)
    before, files = rows(database), generations(database)
    with pytest.raises(error, match=reason):
        rebuild(database, store, 2, open_store)
    assert (rows(database), generations(database)) == (before, files)
    assert multiprocessing.active_children() == []


def test_a_shard_process_ends_when_its_parent_is_gone(database: Path) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    receiver.close()
    with open_generations(settings(database)).begin_rebuild() as generation:
        shard = Shard(generation.shard(1), PROJECTIONS, COUNT, 0, GroupRange(GROUPS[1]))
        build_shard(partial(open_events, settings(database)), shard, sender)
    sender.close()


@pytest.mark.parametrize(
    "groups", [GroupRange(), GroupRange(GROUPS[2]), GroupRange("", GROUPS[3]), GroupRange(GROUPS[1], GROUPS[4])]
)
@pytest.mark.parametrize("through", [1, 1_234, COUNT])
def test_streams_are_the_same_whether_they_are_looked_up_or_sorted(
    store: EventStore, groups: GroupRange, through: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> list[Recorded]:
        return [recorded for batch in store.read_streams(through, groups) for recorded in batch]

    looked_up = read()
    monkeypatch.setattr(sqlite, "SORTED_FROM", 1)
    assert read() == looked_up
    end = groups.end or "~"
    expected = [
        recorded
        for recorded in history(store, 0, 10_000)
        if recorded.position <= through and groups.first <= recorded.event.group_id < end
    ]
    assert looked_up == sorted(expected, key=lambda recorded: (recorded.event.group_id, recorded.version))


def test_a_history_is_split_into_ranges_of_similar_size_that_miss_nothing(store: EventStore) -> None:
    whole = [recorded for batch in store.read_streams(COUNT) for recorded in batch]
    assert store.split(COUNT, 1) == [GroupRange()]
    for number in (2, 3, 5):
        shards = [
            [recorded for batch in store.read_streams(COUNT, groups) for recorded in batch]
            for groups in store.split(COUNT, number)
        ]
        assert [recorded for shard in shards for recorded in shard] == whole
        assert max(map(len, shards)) < COUNT / number + COUNT / len(GROUPS) * 1.5
    assert len(store.split(COUNT, 100)) <= len(GROUPS) + 1


def test_the_command_takes_the_number_of_processes(database: Path) -> None:
    assert run_cli(database, "replay", "--jobs", "2").returncode == 0
    wrong = run_cli(database, "replay", "--jobs", "0")
    assert (wrong.returncode, "--jobs" in wrong.stderr) == (2, True)
