"""The progress bar on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from contextlib import closing
from typing import TYPE_CHECKING

from projector.bootstrap import open_stores
from projector.domain.events import GroupFilled, MembersJoined, MembersLeft
from projector.event_store import Candidate
from projector.settings import Settings
from tests.running import environment

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
