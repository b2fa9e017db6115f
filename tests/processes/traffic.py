"""Callbacks from many senders at once, and a ledger of what was sent and of what was acknowledged."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx2

from projector.callbacks import translate
from projector.event_store import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from projector.domain.events import Recorded
    from tests.running import Server

GROUPS = [f"@TGS#{number}" for number in range(6)]
USERS = [f"user{number}" for number in range(30)]
EPOCH = 1_670_574_414_000
SPAN_MS = 100_000


def callback(serial: int, seed: int) -> dict[str, Any]:
    """The callback with this number: always the same one, and like no other. One in ten has no time of its own."""
    rng = random.Random(f"{seed} {serial}")
    user, some = rng.choice(USERS), [{"Member_Account": name} for name in rng.sample(USERS, 3)]
    command, more = rng.choice(
        [
            ("AfterNewMemberJoin", {"JoinType": "Apply", "NewMemberList": some[:1]}),
            ("AfterNewMemberJoin", {"JoinType": "Invited", "NewMemberList": some}),
            ("AfterMemberExit", {"ExitType": "Quit", "ExitMemberList": some[:1]}),
            ("AfterMemberExit", {"ExitType": "Kicked", "ExitMemberList": some}),
            ("AfterGroupFull", {}),
            ("AfterGroupInfoChanged", {"Name": f"name {serial}"}),
            ("AfterGroupInfoChanged", {"UserDefinedDataList": [{"Key": f"k{serial % 3}", "Value": str(serial)}]}),
            ("AfterMemberFieldChanged", {"Member_Account": user, "Role": "Admin", "NameCard": f"card {serial}"}),
            ("AfterChangeGroupOwner", {"NewOwner_Account": user}),
            ("AfterGroupAttrChanged", {"OptionType": "modify", "GroupAttr": [{"key": "a", "value": str(serial)}]}),
            *([("AfterCreateGroup", {"Owner_Account": user, "MemberList": some})] * (serial % 17 == 0)),
            *([("AfterGroupDestroyed", {})] * (serial % 53 == 0)),
        ]
    )
    return {
        "CallbackCommand": f"Group.Callback{command}",
        **({} if serial % 10 == 0 else {"EventTime": EPOCH + rng.randrange(SPAN_MS)}),
        "GroupId": rng.choice(GROUPS),
        "Operator_Account": user,
        "Serial": serial,
        "Type": "Public",
        **more,
    }


def candidates(serials: Sequence[int], seed: int) -> list[Candidate]:
    """The same callbacks as events, to be appended without a server."""
    translated = []
    for serial in serials:
        body = callback(serial, seed)
        one = translate(body["CallbackCommand"], json.dumps(body).encode(), platform=None, received_at=EPOCH + SPAN_MS)
        translated.append(Candidate(one.event, one.identity))
    return translated


@dataclass
class Ledger:
    """Every callback that was sent, by its number, and the positions it was acknowledged with."""

    seed: int
    sent: set[int] = field(default_factory=set)
    acknowledged: dict[int, set[int]] = field(default_factory=dict)
    spooled: set[int] = field(default_factory=set)
    cut: list[int] = field(default_factory=list)
    """Sent, and the connection broke before an answer came."""
    may_refuse: bool = False
    refused: list[tuple[int, str | None]] = field(default_factory=list)
    """Status and `Retry-After` of every other answer than OK."""
    enough: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    answers: int = 0
    posts: int = 0

    def draw(self, rng: random.Random) -> int:
        """A new callback or, now and then, one sent before: first of all those that were never answered."""
        with self.changed:
            serial = len(self.sent) + 1
            if self.cut and rng.random() < 0.5:
                serial = self.cut.pop()
            elif self.sent and rng.random() < 0.15:
                serial = rng.randint(max(1, len(self.sent) - 300), len(self.sent))
            if serial in self.sent and serial % 10 == 0:
                serial = len(self.sent) + 1
            self.sent.add(serial)
            self.posts += 1
            self.changed.notify_all()
            return serial

    def acknowledge(self, serial: int, position: int | None) -> None:
        """Note what became of a callback; without a position it waits in the spool."""
        with self.changed:
            if position is None:
                self.spooled.add(serial)
            else:
                self.acknowledged.setdefault(serial, set()).add(position)
            self.answers += 1
            self.changed.notify_all()

    def refuse(self, status: int, retry_after: str | None) -> None:
        with self.changed:
            self.refused.append((status, retry_after))
            self.changed.notify_all()

    def wait_for(self, *, posts: int = 0, answers: int = 0, refusals: int = 0) -> None:
        """Wait until so many more were sent, acknowledged, or refused."""
        with self.changed:
            wanted = (self.posts + posts, self.answers + answers, len(self.refused) + refusals)
            assert self.changed.wait_for(lambda: self._is_enough(*wanted), timeout=60)
            assert self.may_refuse or not self.refused

    def _is_enough(self, posts: int, answers: int, refusals: int) -> bool:
        if self.refused and not self.may_refuse:
            return True
        return self.posts >= posts and self.answers >= answers and len(self.refused) >= refusals

    def assert_kept(self, history: Sequence[Recorded]) -> None:
        """All acknowledged is recorded once, where it was said to be; all else that was sent, at most once."""
        assert [recorded.position for recorded in history] == list(range(1, len(history) + 1))
        bodies = {recorded.position: json.loads(recorded.event.callback) for recorded in history}
        times = Counter(body["Serial"] for body in bodies.values())
        assert [serial for serial, count in times.items() if count > 1] == [], "recorded twice"
        assert times.keys() <= self.sent
        assert [body for body in bodies.values() if body != callback(body["Serial"], self.seed)] == []
        found = {body["Serial"]: {position} for position, body in bodies.items()}
        assert self.spooled <= found.keys(), "acknowledged into the spool, and lost"
        assert {serial: found.get(serial) for serial in self.acknowledged} == self.acknowledged

    def assert_nothing_more(self, history: Sequence[Recorded]) -> None:
        """All that is recorded was acknowledged."""
        recorded = {json.loads(one.event.callback)["Serial"] for one in history}
        assert recorded - self.acknowledged.keys() == set(), "recorded, and the sender was not told so"


def send(server: Server, ledger: Ledger, name: str) -> None:
    """Post one callback after the other until there is enough, or the server is gone."""
    rng = random.Random(f"{ledger.seed} {name}")
    with httpx2.Client(timeout=30) as client:
        mine = replace(server, client=client)
        while not ledger.enough.is_set():
            serial = ledger.draw(rng)
            try:
                answer = mine.post(callback(serial, ledger.seed))
            except httpx2.TransportError:
                with ledger.changed:
                    ledger.cut.append(serial)
                return
            if answer.status_code == 200:
                position = answer.headers.get("Projector-Position")
                ledger.acknowledge(serial, int(position) if position else None)
            else:
                ledger.refuse(answer.status_code, answer.headers.get("Retry-After"))


@contextlib.contextmanager
def pouring(*servers: Server, ledger: Ledger, senders: int = 8, name: str = "") -> Iterator[None]:
    """Post from several threads, until the block is left or the server is gone."""
    ledger.enough.clear()
    threads = [
        threading.Thread(target=send, args=(servers[number % len(servers)], ledger, f"{name} {number}"))
        for number in range(senders)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ledger.enough.set()
        for thread in threads:
            thread.join()
