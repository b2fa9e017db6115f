"""Replay: damage is found and put right, a lost read model comes back, and nobody notices while it happens."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from projector.bootstrap import PROJECTIONS, open_read_model, open_stores
from projector.subscription import Subscription
from tests import oracle
from tests.processes.databases import (
    assert_served_as_recorded,
    change_read_model,
    checkpoints,
    copied,
    history,
    read_model,
    rows,
    settings,
    write,
)
from tests.processes.traffic import GROUPS, Ledger, callback, pouring
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from projector.domain.events import Recorded
    from projector.read_model import Tables
    from tests.running import Server

pytestmark = pytest.mark.slow  # every test here starts processes

SEED = 20230101
COUNT = 2_000
GROUP, OTHER = GROUPS[0], GROUPS[1]


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is projected to its head."""
    database = tmp_path_factory.mktemp("projected") / "events.db"
    write(database, range(1, COUNT + 1), SEED)
    assert run_cli(database, "replay").returncode == 0
    return database


@pytest.fixture
def database(projected: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return copied(projected, tmp_path / "copy")


def a_member(database: Path, group_id: str) -> str:
    """The first member of a group, as the events say."""
    return min(oracle.members(oracle.facts(history(database)), group_id))


DAMAGES = {
    "a row changed": ("UPDATE members SET standing = 0 WHERE group_id = :group AND user_id = :user", "members {user}"),
    "a row deleted": ("DELETE FROM members WHERE group_id = :group AND user_id = :user", "members {user}"),
    "a row added": ("INSERT INTO members SELECT :group, 'ghost', 1, 5, 5, {nulls} '' ", "members ghost"),
    "a count that is off": ("UPDATE rosters SET member_count = member_count + 1 WHERE group_id = :group", "rosters"),
    "a profile lost": ("DELETE FROM profiles WHERE group_id = :group", "profiles"),
    "a filling forgotten": ("UPDATE fullness SET evidence = '{{}}' WHERE group_id = :group", "fullness"),
}


@pytest.mark.parametrize(("damage", "where"), DAMAGES.values(), ids=DAMAGES)
def test_a_damage_is_found_with_both_values_by_a_check_that_changes_nothing_and_put_right_by_a_replay(
    database: Path, damage: str, where: str
) -> None:
    user, right = a_member(database, GROUP), rows(database)
    statement = damage.format(nulls="NULL, NULL, 0, 0, 0, 0, NULL, 0, 0,")
    change_read_model(database, statement.replace(":group", f"'{GROUP}'").replace(":user", f"'{user}'"))
    damaged = rows(database)

    found = run_cli(database, "replay", "--check")
    assert found.returncode == 1
    group, row, was, must_be = (line.strip() for line in found.stdout.splitlines()[:4])
    assert (group, row) == (f"group {GROUP}", where.format(user=user))
    table = row.split()[0]
    (changed,) = {*damaged[table]} - {*right[table]} or {None}
    (original,) = {*right[table]} - {*damaged[table]} or {None}
    assert was.split(maxsplit=1) == ["was", str(changed)]
    assert must_be.split(maxsplit=2) == ["must", "be", str(original)]
    assert found.stdout.splitlines()[-1] == f"position {COUNT}: 1 row(s) differed"
    assert rows(database) == damaged

    healed = run_cli(database, "replay")
    assert healed.returncode == 1, "it differed"
    assert healed.stdout.splitlines()[-1] == f"position {COUNT}: 1 row(s) differed and were put right"
    assert rows(database) == right
    again = run_cli(database, "replay", "--check")
    assert (again.returncode, again.stdout) == (0, f"position {COUNT}: the read model is what the events say\n")


def test_with_a_group_only_that_group_is_compared_and_put_right(database: Path) -> None:
    right = rows(database)
    for group_id in (GROUP, OTHER):
        change_read_model(database, f"UPDATE rosters SET member_count = 99 WHERE group_id = '{group_id}'")
    assert run_cli(database, "replay", "--check", "--group", GROUPS[2]).returncode == 0
    check = run_cli(database, "replay", "--check", "--group", GROUP)
    assert (check.returncode, f"group {GROUP}\n" in check.stdout, OTHER in check.stdout) == (1, True, False)
    assert run_cli(database, "replay", "--group", GROUP).returncode == 1
    left = run_cli(database, "replay", "--check")
    assert (left.returncode, GROUP in left.stdout, f"group {OTHER}\n" in left.stdout) == (1, False, True)
    assert run_cli(database, "replay", "--group", OTHER).returncode == 1
    assert rows(database) == right


def test_a_read_model_that_is_deleted_or_of_another_schema_is_built_again_at_the_next_start(database: Path) -> None:
    right = rows(database)
    read_model(database).unlink()
    with serving(database) as server:
        assert_served_as_recorded(server, database)
    assert rows(database) == right
    with closing(sqlite3.connect(read_model(database))) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("DROP TABLE profiles")
    with serving(database) as server:
        assert_served_as_recorded(server, database)
    assert rows(database) == right


def test_a_read_model_that_is_ahead_of_its_events_after_a_restored_backup_is_not_believed(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 51), SEED)
    backup = copied(database, tmp_path / "backup")
    write(database, range(51, 101), SEED)
    assert run_cli(database, "replay").returncode == 0
    backup.replace(database)
    with serving(database) as server:
        position = int(server.post(callback(101, SEED)).headers["Projector-Position"])
        assert position == 51
        assert_served_as_recorded(server, database)


class Reader(threading.Thread):
    """Asks for groups and rosters until told to stop, and notes every answer that is none, or is torn."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.enough = threading.Event()
        self.answers = 0
        self.faults: list[str] = []
        self._server = server

    def run(self) -> None:
        with httpx2.Client(timeout=30) as client:
            while not self.enough.is_set():
                for group_id in GROUPS:
                    answer = client.get(f"{self._server.url}{self._server.group_path(group_id)}/members?limit=1000")
                    self._note(answer)

    def _note(self, answer: httpx2.Response) -> None:
        self.answers += 1
        if answer.status_code != 200:
            self.faults.append(f"{answer.status_code} {answer.text}")
        elif answer.json()["member_count"] != len(answer.json()["members"]):
            self.faults.append(f"torn: {answer.text}")


def test_replays_while_callbacks_pour_in_find_nothing_and_heal_what_was_damaged_and_no_reader_notices(
    database: Path,
) -> None:
    ledger = Ledger(SEED, sent={*range(1, COUNT + 1)})
    with serving(database) as server:
        reader = Reader(server)
        reader.start()
        with pouring(server, ledger=ledger, senders=4):
            ledger.wait_for(answers=100)
            for arguments in ([], ["--check"], ["--group", GROUP]):
                done = run_cli(database, "replay", *arguments)
                assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stdout + done.stderr
                ledger.wait_for(answers=100)
            change_read_model(database, f"DELETE FROM fullness WHERE group_id = '{GROUP}'")
            change_read_model(database, f"UPDATE rosters SET lives = '{{}}' WHERE group_id = '{OTHER}'")
            healed = run_cli(database, "replay")
            assert healed.returncode == 1
            assert "put right" in healed.stdout
            ledger.wait_for(answers=100)
        reader.enough.set()
        reader.join()
        assert reader.faults == []
        assert reader.answers > 0
        ledger.assert_kept(history(database))
        assert_served_as_recorded(server, database)
        assert run_cli(database, "replay", "--check").returncode == 0


def test_several_replays_at_once_do_not_get_in_each_others_way(database: Path) -> None:
    for _ in range(4):
        outcomes: list[Any] = []
        threads = [
            threading.Thread(target=lambda into=outcomes: into.append(run_cli(database, "replay"))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [done.stderr for done in outcomes if done.returncode != 0] == []


class Watched:
    """A projection, of a version of choice, that notes which events it applied."""

    def __init__(self, projection: Any, *, newer: bool) -> None:
        self.name = projection.name
        self.version = projection.version + newer
        self.applied: list[int] = []
        self._projection = projection

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        self.applied += [recorded.position for recorded in batch]
        self._projection.apply(tables, batch)


@pytest.fixture
def newer_profile(database: Path) -> Iterator[tuple[Subscription, dict[str, list[int]]]]:
    """A subscription whose profile projection is one version newer, and what each projection applied."""
    events, target = open_stores(settings(database)).events, open_read_model(settings(database))
    projections = [Watched(projection, newer=projection.name == "profile") for projection in PROJECTIONS]
    yield (
        Subscription(events, target, projections),
        {projection.name: projection.applied for projection in projections},
    )
    target.close()
    events.close()


def test_a_projection_of_a_newer_version_is_emptied_and_built_again_and_the_others_are_not_touched(
    projected: Path, database: Path, newer_profile: tuple[Subscription, dict[str, list[int]]]
) -> None:
    subscription, applied = newer_profile
    right = rows(projected)
    emptied = rows(database)
    assert emptied["profiles"] == []
    assert checkpoints(database) == {"membership": COUNT, "profile": 0, "fullness": COUNT}
    assert {table: emptied[table] for table in ("members", "rosters", "fullness")} == {
        table: right[table] for table in ("members", "rosters", "fullness")
    }
    assert subscription.catch_up() == COUNT
    assert applied == {"membership": [], "profile": list(range(1, COUNT + 1)), "fullness": []}
    assert rows(database) == {
        **right,
        "checkpoints": [("fullness", 1, COUNT), ("membership", 1, COUNT), ("profile", 2, COUNT)],
    }


def test_a_projection_of_an_older_version_is_built_again_too_and_the_log_says_so(
    projected: Path, database: Path, newer_profile: tuple[Subscription, dict[str, list[int]]]
) -> None:
    newer_profile[0].catch_up()
    with serving(database) as server:
        assert_served_as_recorded(server, database)
        assert [line["projection"] for line in server.log if "starts over" in line["event"]] == ["profile"]
    assert rows(database) == rows(projected)
