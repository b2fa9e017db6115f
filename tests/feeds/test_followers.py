"""A follower that is killed at random, over a server that is killed too, ends up equal to the server."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.feeds.follower import Follower, kept
from tests.feeds.sse import stream
from tests.processes.campaign import rounds
from tests.processes.databases import history
from tests.processes.traffic import GROUPS, Ledger, pouring
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]

SEED = 20261129
KILLS = rounds(15)


class DurableFollower(Follower):
    """Keeps its cursor with its state, as a follower with a database would: each message changes both, or neither."""

    def __init__(self) -> None:
        super().__init__(lambda group_id, position: read(self.server, group_id, position))
        self.server: Server
        self.cursor = f"0-{'0' * 8}-0"

    def follow(self, url: str, chance: random.Random) -> None:
        """Follow in any form, and be killed after some messages."""
        left = chance.randrange(1, 40)
        for message in self._messages(url, chance):
            self.apply(message)
            self.cursor = message["cursor"]
            left -= 1
            if not left:
                return

    def _messages(self, url: str, chance: random.Random) -> Iterator[dict[str, Any]]:
        if chance.random() < 0.5:
            yield from httpx2.get(f"{url}/v1/changes?after={self.cursor}&wait=1&limit=50").json()["messages"]
            return
        with stream(f"{url}/v1/changes", last_event_id=self.cursor) as events:
            for event in events:
                if event.name == "caught-up":
                    return
                if event.name in ("change", "notice"):
                    yield event.data


def read(server: Server, group_id: str, position: int) -> Any:
    """A group and its members at a position, None if it was not known."""
    group = server.get(server.group_path(group_id), position=position)
    if group.status_code == 404:
        return None
    members, path = {}, f"{server.group_path(group_id, 'members')}?position={position}&limit=1000"
    while path:
        page = server.get(path)
        members |= {member["user_id"]: member for member in page.json()["members"]}
        following = re.findall('<([^>]*)>; rel="next"', page.headers.get("Link", ""))
        path = following[0] if following else ""
    return group.json(), members


def test_a_follower_that_is_killed_at_random_is_equal_to_the_server_in_the_end(tmp_path: Path) -> None:
    database, ledger, chance = tmp_path / "events.db", Ledger(SEED), random.Random(SEED)
    follower = DurableFollower()
    for _ in range(2):
        with serving(database, "--processes", "2") as server:
            follower.server = server
            with pouring(server, ledger=ledger, senders=2):
                for number in range(KILLS):
                    ledger.wait_for(acknowledged=5)
                    follower.follow(server.url, chance)
                    if number == KILLS // 2:
                        assert run_cli(database, "replay").returncode == 0
                server.kill()
    with serving(database) as server:
        follower.server = server
        head = len(history(database))
        server.get("/v1/groups", wait_for=head)
        while int(follower.cursor.partition("-")[0]) < head:
            page = server.get("/v1/changes", after=follower.cursor, limit=1000).json()
            for message in page["messages"]:
                follower.apply(message)
            follower.cursor = page["cursor"]
        states = {group_id: state for group_id in GROUPS if (state := read(server, group_id, head))}
        assert states
        assert kept(follower.groups) == kept(states)
