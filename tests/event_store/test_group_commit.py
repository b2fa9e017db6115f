"""Group commit over a real store: one transaction at a time, everyone answered when the own one is durable."""

from __future__ import annotations

import asyncio
from threading import Event as Signal
from typing import TYPE_CHECKING

import pytest

from projector.event_store import Appended, Candidate, StoreUnavailable
from projector.event_store.group_commit import GroupCommit, Overloaded
from tests.domain import facts as f
from tests.event_store.databases import open_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from projector.event_store.sqlite import SQLiteEventStore


class Gate:
    """A store's `append` that waits for a gate, and records the transactions."""

    def __init__(self, store: SQLiteEventStore, *, is_open: bool = False) -> None:
        self._store = store
        self.entered = Signal()
        self.may_go_on = Signal()
        self.batches: list[int] = []
        self.fails: set[int] = set()
        if is_open:
            self.may_go_on.set()

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        self.batches.append(len(batch))
        self.entered.set()
        assert self.may_go_on.wait(60)
        if len(self.batches) in self.fails:
            raise StoreUnavailable(f"transaction {len(self.batches)}")
        return self._store.append(batch)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.db")


@pytest.fixture
def store(path: str) -> Iterator[SQLiteEventStore]:
    opened, _ = open_sqlite(path, {})
    yield opened
    opened.close()


def candidate(at: int, identity: bytes | None = None) -> Candidate:
    return Candidate(f.joined(at, "ann"), identity)


def nothing() -> None:
    pass


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 60)


async def appending(commit: GroupCommit, candidates: Sequence[Candidate]) -> list[asyncio.Task[Appended]]:
    """Start appending, and return when each task has run up to its wait: once round the loop."""
    tasks = [asyncio.create_task(commit.append(candidate)) for candidate in candidates]
    await asyncio.sleep(0)
    assert commit.depth == len(tasks)
    return tasks


async def behind_a_commit(commit: GroupCommit, gate: Gate) -> asyncio.Task[Appended]:
    """Start a first append, and return when its commit is under way and held at the gate."""
    first = asyncio.create_task(commit.append(candidate(0)))
    await entered(gate)
    return first


def test_what_arrives_during_a_commit_shares_the_next_one_in_the_order_of_arrival(store: SQLiteEventStore) -> None:
    gate = Gate(store)

    async def story() -> list[Appended]:
        commit = GroupCommit(gate.append, on_commit=nothing)
        first = await behind_a_commit(commit, gate)
        others = await appending(commit, [candidate(at) for at in range(1, 51)])
        assert not any(task.done() for task in (first, *others))
        gate.may_go_on.set()
        appended = await asyncio.gather(first, *others)
        await commit.close()
        return appended

    assert asyncio.run(story()) == [Appended(position, False) for position in range(1, 52)]
    assert gate.batches == [1, 50]
    assert [recorded.event.occurred_at for recorded in store.read(0, 100)] == [
        f.joined(at).occurred_at for at in range(51)
    ]


async def one_a_turn(commit: GroupCommit, count: int) -> None:
    """Append events, a further one in each turn of the event loop."""
    tasks = []
    for at in range(count):
        tasks.append(asyncio.create_task(commit.append(candidate(at))))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    await commit.close()


def test_a_transaction_waits_while_each_turn_of_the_loop_brings_another_event(store: SQLiteEventStore) -> None:
    gate = Gate(store, is_open=True)
    asyncio.run(one_a_turn(GroupCommit(gate.append, on_commit=nothing, gather_s=60), 40))
    assert gate.batches == [40]


def test_a_transaction_waits_no_longer_than_it_may_for_events_that_keep_arriving(store: SQLiteEventStore) -> None:
    gate = Gate(store, is_open=True)
    asyncio.run(one_a_turn(GroupCommit(gate.append, on_commit=nothing, gather_s=0), 40))
    assert gate.batches[0] < 40
    assert sum(gate.batches) == 40


def test_a_transaction_waits_for_no_more_than_fill_it(store: SQLiteEventStore) -> None:
    gate = Gate(store, is_open=True)
    asyncio.run(one_a_turn(GroupCommit(gate.append, on_commit=nothing, batch_size=10, gather_s=60), 40))
    assert gate.batches[0] == 10
    assert sum(gate.batches) == 40


def test_nobody_is_answered_before_the_own_transaction_is_durable(store: SQLiteEventStore, path: str) -> None:
    heads: list[int] = []

    def look() -> None:
        other, _ = open_sqlite(path, {})
        heads.append(other.head())
        other.close()

    async def story() -> None:
        commit = GroupCommit(Gate(store, is_open=True).append, on_commit=look)
        for at in range(3):
            appended = await commit.append(candidate(at))
            assert heads[-1] == appended.position == at + 1
        await commit.close()

    asyncio.run(story())
    assert heads == [1, 2, 3]


def test_a_transaction_takes_no_more_than_the_batch_size(store: SQLiteEventStore) -> None:
    gate = Gate(store)

    async def story() -> None:
        commit = GroupCommit(gate.append, on_commit=nothing, batch_size=10)
        first = await behind_a_commit(commit, gate)
        others = await appending(commit, [candidate(at) for at in range(25)])
        gate.may_go_on.set()
        appended = await asyncio.gather(first, *others)
        assert [result.position for result in appended] == list(range(1, 27))
        await commit.close()

    asyncio.run(story())
    assert gate.batches == [1, 10, 10, 5]


def test_a_transaction_that_fails_fails_all_who_share_it_and_nobody_else(store: SQLiteEventStore) -> None:
    gate = Gate(store)
    gate.fails = {2}
    read_transaction: list[int] = []

    async def story() -> list[Appended | BaseException]:
        commit = GroupCommit(gate.append, on_commit=lambda: read_transaction.append(store.head()), batch_size=4)
        first = await behind_a_commit(commit, gate)
        others = await appending(commit, [candidate(at) for at in range(1, 10)])
        gate.may_go_on.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        results.append(await commit.append(candidate(99)))
        await commit.close()
        return results

    results = asyncio.run(story())
    assert gate.batches == [1, 4, 4, 1, 1]
    assert [str(result) for result in results[1:5]] == ["transaction 2"] * 4
    assert all(isinstance(result, StoreUnavailable) for result in results[1:5])
    assert [*results[:1], *results[5:]] == [Appended(position, False) for position in range(1, 8)]
    assert [recorded.event.occurred_at - f.EPOCH for recorded in store.read(0, 100)] == [0, 5, 6, 7, 8, 9, 99]
    assert read_transaction == [1, 5, 6, 7]


def test_over_capacity_a_newcomer_is_turned_away_at_once_and_the_others_are_served(store: SQLiteEventStore) -> None:
    gate = Gate(store)

    async def story() -> None:
        commit = GroupCommit(gate.append, on_commit=nothing, capacity=3)
        first = await behind_a_commit(commit, gate)
        others = await appending(commit, [candidate(at) for at in range(3)])
        assert commit.depth == 3
        for _ in range(2):
            with pytest.raises(Overloaded):
                await commit.append(candidate(9))
        gate.may_go_on.set()
        await asyncio.gather(first, *others)
        assert commit.depth == 0
        assert (await commit.append(candidate(10))).position == 5
        await commit.close()

    asyncio.run(story())


def test_closing_answers_everyone_who_was_accepted(store: SQLiteEventStore) -> None:
    gate = Gate(store)

    async def story() -> None:
        commit = GroupCommit(gate.append, on_commit=nothing, batch_size=2)
        tasks = [await behind_a_commit(commit, gate), *await appending(commit, [candidate(at) for at in range(7)])]
        closing = asyncio.create_task(commit.close())
        gate.may_go_on.set()
        await closing
        assert all(task.done() for task in tasks)
        assert [task.result().position for task in tasks] == list(range(1, 9))

    asyncio.run(story())
    assert store.head() == 8


def test_closing_what_was_never_used_is_nothing_to_do(store: SQLiteEventStore) -> None:
    asyncio.run(GroupCommit(store.append, on_commit=nothing).close())


def test_one_who_goes_away_while_waiting_disturbs_nobody(store: SQLiteEventStore) -> None:
    gate = Gate(store)

    async def story() -> None:
        commit = GroupCommit(gate.append, on_commit=nothing)
        first = await behind_a_commit(commit, gate)
        gone, *others = await appending(commit, [candidate(at) for at in range(3)])
        first.cancel()
        gone.cancel()
        gate.may_go_on.set()
        results = await asyncio.gather(first, gone, *others, return_exceptions=True)
        assert [type(result) for result in results[:2]] == [asyncio.CancelledError] * 2
        assert [result.position for result in results[2:] if isinstance(result, Appended)] == [3, 4]
        await commit.close()

    asyncio.run(story())


def test_one_who_goes_away_before_a_failure_disturbs_nobody(store: SQLiteEventStore) -> None:
    gate = Gate(store)
    gate.fails = {1}

    async def story() -> None:
        commit = GroupCommit(gate.append, on_commit=nothing)
        first = await behind_a_commit(commit, gate)
        first.cancel()
        gate.may_go_on.set()
        await asyncio.gather(first, return_exceptions=True)
        assert (await commit.append(candidate(1))).position == 1
        await commit.close()

    asyncio.run(story())


def test_a_repeat_in_the_same_transaction_is_the_same_event(store: SQLiteEventStore) -> None:
    gate = Gate(store)

    async def story() -> None:
        commit = GroupCommit(gate.append, on_commit=nothing)
        first = await behind_a_commit(commit, gate)
        twice = await appending(commit, [candidate(1, b"1" * 16), candidate(1, b"1" * 16)])
        gate.may_go_on.set()
        assert await asyncio.gather(first, *twice) == [Appended(1, False), Appended(2, False), Appended(2, True)]
        await commit.close()

    asyncio.run(story())


def test_an_error_of_any_kind_reaches_those_who_wait_and_the_next_are_served(store: SQLiteEventStore) -> None:
    poison = Candidate(f.joined(0, "ann", callback="\ud800"), None)

    async def story() -> None:
        commit = GroupCommit(store.append, on_commit=nothing)
        with pytest.raises(UnicodeEncodeError):
            await commit.append(poison)
        assert (await commit.append(candidate(1))).position == 1
        await commit.close()

    asyncio.run(story())


def test_hundreds_of_tasks_and_repeats_end_in_positions_without_a_gap(store: SQLiteEventStore) -> None:
    async def story() -> list[Appended]:
        commit = GroupCommit(store.append, on_commit=nothing, batch_size=64)
        work = [commit.append(candidate(at % 300, b"%016d" % (at % 300))) for at in range(900)]
        appended = await asyncio.gather(*work)
        await commit.close()
        return appended

    appended = asyncio.run(story())
    assert sorted(result.position for result in appended if not result.repeated) == list(range(1, 301))
    assert [result.position for result in appended] == [at % 300 + 1 for at in range(900)]
    assert store.head() == 300
