"""`projector verify`: beside a running server it detects changes to the history and the read model, and only those."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.kinds import change_events, on_postgresql, query_row
from tests.processes.databases import change_read_model, write
from tests.processes.traffic import Ledger, pouring
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20241101


@pytest.fixture
def database(kind: str, tmp_path: Path) -> Path:
    database = tmp_path / "events.db"
    write(database, range(1, 301), SEED)
    assert run_cli(database, "replay").returncode == 0
    return database


def test_an_intact_history_and_read_model_pass_while_callbacks_come_in(database: Path) -> None:
    ledger = Ledger(SEED + 1)
    with serving(database) as server, pouring(server, ledger=ledger, senders=2):
        ledger.wait_for(acknowledged=20)
        verified = run_cli(database, "verify")
        assert verified.returncode == 0, verified.stdout
        history, digest, model = verified.stdout.splitlines()
        assert digest.startswith("digest: ")
        assert history.endswith("events in 6 groups, no faults")
        assert model.endswith("read model matches the history")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("DELETE FROM stored_events WHERE {position} = 7", "position 8 follows position 6; 7 is missing"),
        ("UPDATE stored_events SET state = 'garbage' WHERE {position} = 9", "position 9 cannot be decoded"),
        ("UPDATE stored_events SET topic = 'FromTomorrow' WHERE {position} = 9", "position 9 cannot be decoded"),
        ("UPDATE stored_events SET originator_version = 999 WHERE {position} = 11", "position 11 has version 999"),
        (
            "UPDATE stored_events SET originator_id = 'elsewhere' WHERE {position} = 11",
            "position 11 cannot be decoded: it belongs to another",
        ),
        (
            "UPDATE identities SET position = 400 WHERE position = 12",
            "callback identities with no event, or with an event of another identity: 1",
        ),
        (
            "UPDATE identities SET position = 13 WHERE position = 14",
            "callback identities with no event, or with an event of another identity: 1",
        ),
    ],
)
def test_a_change_to_the_history_is_detected(database: Path, change: str, fault: str) -> None:
    change_events(database, change.format(position="notification_id" if on_postgresql() else "rowid"))
    verified = run_cli(database, "verify", "--log-only")
    assert verified.returncode == 1
    assert any(line.startswith(fault) for line in verified.stdout.splitlines()), verified.stdout
    assert re.search(r", \d+ faults?$", verified.stdout.splitlines()[-2])


def test_a_consistent_change_to_the_history_is_detected_by_its_digest(database: Path) -> None:
    digest = run_cli(database, "verify", "--log-only").stdout.splitlines()[-1].removeprefix("digest: ")
    write(database, range(301, 320), SEED)
    assert run_cli(database, "verify", "--log-only", "--expect", digest).returncode == 0
    position = "notification_id" if on_postgresql() else "rowid"
    states = f"(SELECT state FROM stored_events WHERE {position} = {{}})"
    same_group = (
        "SELECT a.{0}, b.{0} FROM stored_events a JOIN stored_events b USING (originator_id, topic)"
        " WHERE a.{0} < b.{0} LIMIT 1"
    )
    first, second = query_row(database, same_group.format(position))
    change_events(database, f"UPDATE stored_events SET state = {states.format(second)} WHERE {position} = {first}")
    assert run_cli(database, "verify", "--log-only").returncode == 0
    verified = run_cli(database, "verify", "--log-only", "--expect", digest)
    assert verified.returncode == 1
    assert verified.stdout.startswith("the events up to position 300 do not match the expected digest")


def test_a_digest_beyond_the_head_and_an_invalid_digest_are_distinguished(database: Path) -> None:
    assert run_cli(database, "verify", "--log-only", "--expect", f"999:{'0' * 64}").returncode == 1
    refused = run_cli(database, "verify", "--expect", "999")
    assert (refused.returncode, "invalid digest '999'" in refused.stderr) == (2, True)


def test_a_change_to_the_read_model_is_detected_and_left_as_it_is(database: Path) -> None:
    with serving(database):
        change_read_model(database, "UPDATE groups SET member_count = 99 WHERE group_id = '@TGS#1'")
        for _ in range(2):
            verified = run_cli(database, "verify")
            assert verified.returncode == 1
            assert "group @TGS#1" in verified.stdout
            assert verified.stdout.splitlines()[-1].endswith("1 row differed")


def test_verifying_a_missing_database_is_reported_in_one_line(tmp_path: Path) -> None:
    if not on_postgresql():
        done = run_cli(tmp_path / "none.db", "verify")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
