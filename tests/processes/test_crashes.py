"""kill -9 at any moment: acknowledged callbacks are recorded once, and the read model matches the history."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from projector.bootstrap import open_stores
from projector.domain.events import Recorded
from projector.event_store import Appended
from tests import shown
from tests.kinds import copied, generations, settings
from tests.processes import dying
from tests.processes.campaign import rounds, summary
from tests.processes.databases import (
    assert_served_as_recorded,
    begin_read_model,
    change_read_model,
    checkpoints,
    history,
    projected,
    read_model,
    rows,
    write,
)
from tests.processes.traffic import GROUPS, Ledger, callback, candidates, pouring
from tests.processes.waiting import until
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow  # every test here starts processes

ROUNDS = rounds(15)
SEED = 20221209


def assert_consistent(database: Path) -> None:
    """All projections have the same position, and their rows match the events up to it."""
    reached = {*checkpoints(database).values()} or {0}
    assert len(reached) == 1
    recorded = history(database)
    assert max(reached) <= len(recorded)
    if read_model(database).exists():
        assert projected(database) == shown.folded(recorded[: max(reached)])


def test_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    database, ledger, rng = tmp_path / "events.db", Ledger(SEED), random.Random(SEED)
    for turn in range(ROUNDS):
        with serving(database) as server, pouring(server, ledger=ledger, name=str(turn)):
            ledger.wait_for(**{rng.choice(["posts", "acknowledged"]): rng.randrange(1, 200)})
            server.kill()
        left = copied(database, tmp_path / f"after kill {turn}")
        ledger.assert_kept(history(left))
        assert_consistent(left)
        shutil.rmtree(left.parent)

    with serving(database) as server:
        for serial in [serial for serial in sorted(ledger.sent) if serial % 10][-200:]:
            response = server.post(callback(serial, SEED))
            ledger.acknowledge(serial, int(response.headers["Projector-Position"]))
        ledger.assert_kept(history(database))
        assert_served_as_recorded(server, database)
    assert run_cli(database, "verify").returncode == 0
    assert len(ledger.acknowledged) > ROUNDS
    summary(f"{ROUNDS} kills, {ledger.posts} posts, {len(ledger.acknowledged)} callbacks acknowledged")


def test_a_worker_killed_again_and_again_while_it_catches_up_reaches_the_head(tmp_path: Path) -> None:
    database, head, kills, reached = tmp_path / "events.db", 20_000, 0, 0
    write(database, range(1, head + 1), SEED)
    begin_read_model(database).close()
    while reached < head * 3 // 4:
        with serving(database, "--only", "projections") as server:
            before = reached
            until(lambda before=before: max(checkpoints(database).values(), default=0) > before, of=server)
            server.kill()
        (reached,) = {*checkpoints(copied(database, tmp_path / f"after kill {kills}")).values()}
        kills += 1
    assert kills >= 3
    with serving(database, "--only", "projections") as server:
        until(lambda: {*checkpoints(database).values()} == {head}, of=server)
    with serving(database, "--only", "queries") as server:
        assert_served_as_recorded(server, database)


def prepare(tmp_path: Path) -> Path:
    """Prepare a database of a few batches, with an empty read model."""
    database = tmp_path / "events.db"
    write(database, range(1, 2 * dying.BATCH_SIZE + 3), SEED)
    begin_read_model(database).close()
    return database


def each_step(tmp_path: Path, prepared: Path, work: Callable[[Path], None], check: Callable[[Path], None]) -> int:
    """Kill the work before each of its steps, on a new copy each time; check the remaining state; count the steps."""
    for step in count(1):
        database = copied(prepared, tmp_path / f"step {step}")
        finished = dying.does(work, database, dies_at=step)
        check(database)
        if finished:
            return step - 1
    raise AssertionError


def test_dying_before_any_step_of_catching_up_leaves_an_earlier_state_and_the_next_start_reaches_the_head(
    tmp_path: Path,
) -> None:
    prepared = prepare(tmp_path)
    expected = shown.folded(history(prepared))

    def check(database: Path) -> None:
        assert_consistent(copied(database, database.parent / "left"))
        assert dying.does(dying.catch_up, database)
        assert projected(database) == expected
        assert {*checkpoints(database).values()} == {2 * dying.BATCH_SIZE + 2}

    assert each_step(tmp_path, prepared, dying.catch_up, check) > 60


def test_dying_before_any_step_of_an_append_keeps_the_whole_batch_or_nothing_and_a_repeat_is_recognised(
    tmp_path: Path,
) -> None:
    prepared = tmp_path / "events.db"
    write(prepared, [1, 2, 3], SEED)

    def check(database: Path) -> None:
        assert len(history(copied(database, database.parent / "left"))) in (3, 3 + 4)
        events = open_stores(settings(database)).events
        appended = events.append(candidates([3, 4, 5, 6, 7], SEED))
        events.close()
        assert [result.position for result in appended] == [3, 4, 5, 6, 7]
        assert appended[0] == Appended(3, repeated=True)
        assert len(history(database)) == 7

    assert each_step(tmp_path, prepared, dying.append, check) > 8


REPLAYS = {"whole": dying.replay, "by name": dying.replay_by_name, "a group": dying.replay_a_group}


@pytest.mark.parametrize("work", REPLAYS.values(), ids=REPLAYS)
def test_dying_before_any_step_of_a_replay_leaves_everything_unchanged_or_everything_corrected_and_no_files_for_long(
    tmp_path: Path, work: Callable[[Path], None]
) -> None:
    prepared = prepare(tmp_path)
    assert dying.does(dying.catch_up, prepared)
    correct = rows(prepared)
    change_read_model(prepared, f"DELETE FROM profiles WHERE group_id = '{GROUPS[0]}'")
    damaged = rows(prepared)

    def check(database: Path) -> None:
        assert rows(copied(database, database.parent / "left")) in (damaged, correct)
        assert dying.does(work, database)
        assert rows(database) == correct
        assert len(generations(database)) <= 2

    assert each_step(tmp_path, prepared, work, check) > 20


def test_dying_before_any_step_of_a_rollback_leaves_either_generation_live(tmp_path: Path) -> None:
    prepared = prepare(tmp_path)
    assert dying.does(dying.replay, prepared)
    expected = rows(prepared)

    def check(database: Path) -> None:
        assert rows(copied(database, database.parent / "left")) == expected
        assert dying.does(dying.roll_back, database)
        assert rows(database) == expected

    assert each_step(tmp_path, prepared, dying.roll_back, check) > 5


def as_sent(before: list[Recorded], serials: Sequence[int]) -> list[Recorded]:
    """A history, and these callbacks as if no account were forgotten."""
    recorded = [*before]
    for candidate in candidates(serials, SEED):
        group_id = candidate.event.group_id
        version = 1 + sum(earlier.event.group_id == group_id for earlier in recorded)
        recorded.append(Recorded(len(recorded) + 1, candidate.event, version))
    return recorded


def under_ids(database: Path) -> dict[str, Any]:
    """Every group with its members from the read model, with the forgotten account's id in place of its pseudonym."""
    with closing(open_stores(settings(database)).events) as events:
        pseudonyms = [pseudonym for pseudonym, _ in events.forgotten.all()]
    text = json.dumps(projected(database))
    assert sum(name in text for name in (f'"{dying.FORGOTTEN}"', *pseudonyms)) <= 1, "one account has one name"
    for pseudonym in pseudonyms:
        text = text.replace(pseudonym, dying.FORGOTTEN)
    return {group_id: tuple(state) for group_id, state in json.loads(text).items()}


def test_dying_before_any_step_of_forgetting_leaves_the_history_intact_and_the_next_run_completes_it(
    tmp_path: Path,
) -> None:
    prepared = prepare(tmp_path)
    assert dying.does(dying.catch_up, prepared)
    before = history(prepared)
    mentions = sum(f'"{dying.FORGOTTEN}"' in recorded.event.callback for recorded in before)
    assert mentions >= 2
    later = range(len(before) + 1, len(before) + 21)

    def check(database: Path) -> None:
        left = copied(database, database.parent / "left")
        changed = [after for after, original in zip(history(left), before, strict=True) if after != original]
        assert len(changed) in (0, mentions), "in one transaction"
        assert under_ids(left) == shown.folded(before), "the roster is right after the cut"
        write(left, later, SEED)
        assert dying.does(dying.catch_up, left)
        assert under_ids(left) == shown.folded(as_sent(before, later)), "and after the callbacks that follow"
        assert dying.does(dying.forget, database)
        assert dying.FORGOTTEN not in repr(history(database)) + repr(rows(database))
        assert projected(database) == shown.folded(history(database))
        assert len(generations(database)) == 1

    assert each_step(tmp_path, prepared, dying.forget, check) > 20


@pytest.mark.parametrize("serial", [1, 10])  # the second has no EventTime
def test_dying_before_any_step_of_a_retry_from_the_quarantine_leaves_the_callback_recorded_once_or_waiting(
    tmp_path: Path, serial: int
) -> None:
    prepared = tmp_path / "events.db"
    dying.keep_readable(prepared, callback(serial, SEED))

    def check(database: Path) -> None:
        left = copied(database, database.parent / "left")
        waiting = open_stores(settings(left)).quarantine.count()
        assert (len(history(left)), waiting) in {(0, 1), (1, 1), (1, 0)}
        assert dying.does(dying.retry_from_quarantine, database)
        assert len(history(database)) == 1
        assert open_stores(settings(database)).quarantine.count() == 0

    assert each_step(tmp_path, prepared, dying.retry_from_quarantine, check) > 5
