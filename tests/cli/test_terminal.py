"""The progress bar on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import closing
from typing import TYPE_CHECKING

from projector.bootstrap import open_stores
from projector.domain.events import GroupFilled, MembersJoined, MembersLeft
from projector.event_store import Candidate
from projector.event_store.quarantine import UnreadableRequest
from projector.settings import Settings
from tests.running import environment, run_cli

if TYPE_CHECKING:
    from pathlib import Path


def fill(database: Path, count: int) -> None:
    stores = open_stores(Settings(database_path=str(database)))
    for first in range(0, count, 1000):
        batch = []
        for number in range(first, first + 1000):
            fields = {
                "group_id": f"g{number % 40}",
                "occurred_at": 1 + number * 7919 % count,
                "recorded_at": number + 1,
            }
            members = (f"u{number % 613}", f"u{number % 17}")
            event = (
                MembersLeft(**fields, members=members)
                if number % 3 == 0
                else GroupFilled(**fields)
                if number % 11 == 0
                else MembersJoined(**fields, members=members)
            )
            batch.append(Candidate(event, None))
        stores.events.append(batch)
    stores.events.close()


def test_long_work_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    fill(tmp_path / "events.db", 1_000)
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        replay = [sys.executable, "-m", "projector", "replay"]
        done = subprocess.run(replay, env=environment(tmp_path / "events.db"), stdout=subprocess.PIPE, stderr=terminal)
        os.close(terminal)
        assert done.returncode == 0
        assert b"replay: 100%|" in screen.read(4096)


HOSTILE = "\x1b]0;owned\x07\u202eevil\u2028\x9b31m\x7f"


def test_no_control_character_of_a_command_or_an_id_reaches_the_terminal(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    stores = open_stores(Settings(database_path=str(database)))
    body = '{"GroupId":\n"g",\r\n"Name":"' + HOSTILE[9:13] + '"}'
    stores.events.append(
        [Candidate(MembersJoined(group_id=HOSTILE, occurred_at=1, recorded_at=1, members=("a",), callback=body), None)]
    )
    stores.quarantine.keep(UnreadableRequest(HOSTILE.encode(), HOSTILE, HOSTILE, HOSTILE, 1))
    stores.events.close()
    outputs = {}
    for command in ("replay", "events", "status --json", "status", "quarantine list", "quarantine retry", "verify"):
        done = run_cli(database, *command.split())
        outputs[command] = done.stdout
        assert [
            text for text in (done.stdout, done.stderr) if re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)
        ] == []
    (line,) = outputs["events"].splitlines()
    event = json.loads(line)
    assert (event["group_id"], event["callback"]["Name"]) == (HOSTILE, HOSTILE[9:13])
    assert "\\u001b]0;owned" in outputs["quarantine list"]


def test_a_body_is_shown_raw_to_a_program_and_escaped_on_a_terminal(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    stores = open_stores(Settings(database_path=str(database)))
    stores.quarantine.keep(UnreadableRequest(HOSTILE.encode(), "why", None, None, 1))
    stores.events.close()
    show = [sys.executable, "-m", "projector", "quarantine", "show", "1"]
    piped = subprocess.run(show, env=environment(database), capture_output=True, check=True).stdout
    assert HOSTILE.encode() in piped
    ours, terminal = pty.openpty()
    with closing(os.fdopen(ours, "rb", buffering=0)) as screen:
        subprocess.run(show, env=environment(database), stdout=terminal, check=True)
        os.close(terminal)
        seen = screen.read(4096).decode()
    assert "\\u001b]0;owned" in seen
    assert "\x1b" not in seen
