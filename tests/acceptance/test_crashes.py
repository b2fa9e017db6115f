"""kill -9 under load: what was acknowledged is there exactly once, and the read model is what the events say."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from projector.bootstrap import open_stores
from projector.settings import Settings
from tests import oracle
from tests.running import Server, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 25
SENDERS = 8
LAST_YEAR = time.time_ns() // 1_000_000 - 365 * 24 * 3600 * 1000


@dataclass
class Record:
    """What was sent, by EventTime, and the positions that were acknowledged for it."""

    seed: int
    acknowledged: dict[int, set[int]] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    count: int = 0
    next_time: int = LAST_YEAR

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """A callback never sent before, or, now and then, one that was."""
        with self.changed:
            self.next_time += 1
            moment = rng.choice([*self.sent]) if self.sent and rng.random() < 0.1 else self.next_time
            self.sent.add(moment)
        return callback_at(self.seed, moment)

    def note(self, moment: int, position: int) -> None:
        with self.changed:
            self.acknowledged.setdefault(moment, set()).add(position)
            self.count += 1
            self.changed.notify_all()


def callback_at(seed: int, moment: int) -> dict[str, Any]:
    """The callback of a moment: always the same one."""
    rng = random.Random(f"{seed} {moment}")
    user, others = f"user{rng.randrange(30)}", [{"Member_Account": f"user{rng.randrange(30)}"} for _ in range(3)]
    about = {"EventTime": moment, "GroupId": f"group{rng.randrange(5)}", "Operator_Account": user, "Type": "Public"}
    command, more = rng.choice(
        [
            ("AfterNewMemberJoin", {"JoinType": "Apply", "NewMemberList": [{"Member_Account": user}]}),
            ("AfterNewMemberJoin", {"JoinType": "Invited", "NewMemberList": others}),
            ("AfterMemberExit", {"ExitType": "Quit", "ExitMemberList": [{"Member_Account": user}]}),
            ("AfterGroupInfoChanged", {"Name": f"name {rng.randrange(100)}"}),
            ("AfterGroupFull", {}),
            ("AfterMemberFieldChanged", {"Member_Account": user, "Role": "Admin"}),
            *([("AfterCreateGroup", {"Owner_Account": user})] * (rng.random() < 0.1)),
            *([("AfterGroupDestroyed", {})] * (rng.random() < 0.05)),
        ]
    )
    return {"CallbackCommand": f"Group.Callback{command}", **about, **more}


def send(server: Server, record: Record, seed: str) -> None:
    """Post callbacks one after the other until the server is gone."""
    rng = random.Random(seed)
    with httpx2.Client(timeout=30) as client:
        mine = Server(server.process, server.url, server.log, client, server.reader)
        while True:
            body = record.draw(rng)
            try:
                answer = mine.post(body)
            except httpx2.TransportError:
                return
            if answer.status_code == 200:
                record.note(body["EventTime"], int(answer.headers["Projector-Position"]))


@pytest.mark.slow
def test_twenty_five_deaths_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    database, record, rng = tmp_path / "events.db", Record(seed=7), random.Random(7)
    for turn in range(ROUNDS):
        with serving(database) as server:
            senders = [threading.Thread(target=send, args=(server, record, f"{turn} {n}")) for n in range(SENDERS)]
            for sender in senders:
                sender.start()
            with record.changed:
                enough = record.count + rng.randrange(1, 150)
                assert record.changed.wait_for(lambda wanted=enough: record.count >= wanted, timeout=60)
            server.kill()
            for sender in senders:
                sender.join()

    with serving(database) as server:
        history = open_stores(Settings(database_path=str(database))).events.read(0, 1_000_000)
        assert [recorded.position for recorded in history] == list(range(1, len(history) + 1))
        found = {recorded.event.occurred_at: recorded.position for recorded in history}
        assert len(found) == len(history), "something was recorded twice"
        assert found.keys() <= record.sent
        assert {moment: {found.get(moment)} for moment in record.acknowledged} == record.acknowledged

        for group_id, (group, members) in oracle.everything(oracle.facts(history)).items():
            assert server.group(group_id, wait_for=len(history)) == group
            assert server.members(group_id) == members
        check = run_cli(database, "replay", "--check")
        assert check.returncode == 0, check.stdout
