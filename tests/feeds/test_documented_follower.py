"""The followers of docs/following.md, as they are printed there."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.feeds.test_pages import create, join, post
from tests.processes.waiting import until
from tests.running import serving

if TYPE_CHECKING:
    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20261130
GROUP = "a/b %#é"
PAGE = (Path(__file__).parents[2] / "docs" / "following.md").read_text()
LANGUAGES = {"python": (sys.executable, "follower.py"), "javascript": ("node", "follower.mjs")}


def leave(server: Server, *users: str) -> int:
    return post(server, GROUP, "MemberExit", ExitMemberList=[{"Member_Account": user} for user in users])


@pytest.mark.parametrize("language", ["python", pytest.param("javascript", marks=pytest.mark.system)])
def test_it_is_equal_to_the_server_however_often_it_and_the_server_are_killed(language: str, tmp_path: Path) -> None:
    interpreter, name = LANGUAGES[language]
    program, file, chance = tmp_path / name, tmp_path / "roster", random.Random(SEED)
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    program.write_text(text)
    members: list[str] = []
    port = "0"
    for number in range(4):
        with serving(tmp_path / "events.db", "--port", port) as server:
            port = server.url.rpartition(":")[2]
            if not number:
                create(server, GROUP)
            follower = subprocess.Popen([interpreter, str(program), server.url, GROUP, str(file)])
            try:
                for _ in range(10):
                    user = f"u{chance.randrange(8)}"
                    leave(server, user) if user in members else join(server, GROUP, user)
                    members.remove(user) if user in members else members.append(user)
                until(
                    lambda: file.exists() and {*json.loads(file.read_text())["members"]} == {"ann", *members}, of=server
                )
                assert json.loads(file.read_text())["members"] == server.members(GROUP)
            finally:
                follower.kill()
                follower.wait()
            server.kill()
