"""Callbacks from many senders at once, and a ledger of those sent and those acknowledged."""

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
    """The callback with this serial number, always the same and unique. Every tenth has no EventTime."""
    rng = random.Random(f"{seed} {serial}")
    user, others = rng.choice(USERS), [{"Member_Account": name} for name in rng.sample(USERS, 3)]
    command, more = rng.choice(
        [
            ("AfterNewMemberJoin", {"JoinType": "Apply", "NewMemberList": others[:1]}),
            ("AfterNewMemberJoin", {"JoinType": "Invited", "NewMemberList": others}),
            ("AfterMemberExit", {"ExitType": "Quit", "ExitMemberList": others[:1]}),
            ("AfterMemberExit", {"ExitType": "Kicked", "ExitMemberList": others}),
            ("AfterGroupFull", {}),
            ("AfterGroupInfoChanged", {"Name": f"name {serial}"}),
            ("AfterGroupInfoChanged", {"UserDefinedDataList": [{"Key": f"k{serial % 3}", "Value": str(serial)}]}),
            ("AfterMemberFieldChanged", {"Member_Account": user, "Role": "Admin", "NameCard": f"card {serial}"}),
            ("AfterChangeGroupOwner", {"NewOwner_Account": user}),
            ("AfterGroupAttrChanged", {"OptionType": "modify", "GroupAttr": [{"key": "a", "value": str(serial)}]}),
            *([("AfterCreateGroup", {"Owner_Account": user, "MemberList": others})] * (serial % 17 == 0)),
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
    batch = []
    for serial in serials:
        body = callback(serial, seed)
        translation = translate(
            body["CallbackCommand"], json.dumps(body).encode(), platform=None, received_at=EPOCH + SPAN_MS
        )
        batch.append(Candidate(translation.event, translation.identity))
    return batch


@dataclass
class Ledger:
    """The serial numbers of all callbacks sent, and the positions with which they were acknowledged."""

    seed: int
    sent: set[int] = field(default_factory=set)
    acknowledged: dict[int, set[int]] = field(default_factory=dict)
    spooled: set[int] = field(default_factory=set)
    cut: list[int] = field(default_factory=list)
    """Sent, but the connection broke before the response."""
    may_refuse: bool = False
    refused: list[tuple[int, str | None]] = field(default_factory=list)
    """Status and `Retry-After` of every response other than OK."""
    enough: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    acknowledgements: int = 0
    posts: int = 0

    def draw(self, rng: random.Random) -> int:
        """Return a new serial number or, sometimes, one sent before, preferably one without a response."""
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
        """Note that a callback was acknowledged; without a position, it is in the spool."""
        with self.changed:
            if position is None:
                self.spooled.add(serial)
            else:
                self.acknowledged.setdefault(serial, set()).add(position)
            self.acknowledgements += 1
            self.changed.notify_all()

    def refuse(self, status: int, retry_after: str | None) -> None:
        with self.changed:
            self.refused.append((status, retry_after))
            self.changed.notify_all()

    def wait_for(self, *, posts: int = 0, acknowledged: int = 0, refusals: int = 0) -> None:
        """Wait until so many more callbacks were sent, acknowledged, or refused."""
        with self.changed:
            wanted = (self.posts + posts, self.acknowledgements + acknowledged, len(self.refused) + refusals)
            assert self.changed.wait_for(lambda: self._is_enough(*wanted), timeout=60)
            assert self.may_refuse or not self.refused

    def _is_enough(self, posts: int, acknowledged: int, refusals: int) -> bool:
        if self.refused and not self.may_refuse:
            return True
        return self.posts >= posts and self.acknowledgements >= acknowledged and len(self.refused) >= refusals

    def assert_kept(self, history: Sequence[Recorded]) -> None:
        """Every acknowledged callback is recorded once, at its position; every other one sent, at most once."""
        assert [recorded.position for recorded in history] == list(range(1, len(history) + 1))
        bodies = {recorded.position: json.loads(recorded.event.callback) for recorded in history}
        times = Counter(body["Serial"] for body in bodies.values())
        assert [serial for serial, count in times.items() if count > 1] == [], "recorded twice"
        assert times.keys() <= self.sent
        assert [body for body in bodies.values() if body != callback(body["Serial"], self.seed)] == []
        positions = {body["Serial"]: {position} for position, body in bodies.items()}
        assert self.spooled <= positions.keys(), "acknowledged into the spool, and lost"
        assert {serial: positions.get(serial) for serial in self.acknowledged} == self.acknowledged

    def assert_nothing_more(self, history: Sequence[Recorded]) -> None:
        """Every recorded callback was acknowledged."""
        serials = {json.loads(recorded.event.callback)["Serial"] for recorded in history}
        assert serials - self.acknowledged.keys() == set(), "recorded, but not acknowledged"


def send(server: Server, ledger: Ledger, name: str) -> None:
    """Post one callback after another until enough were sent, or the server is gone."""
    rng = random.Random(f"{ledger.seed} {name}")
    with httpx2.Client(timeout=30) as client:
        mine = replace(server, client=client)
        while not ledger.enough.is_set():
            serial = ledger.draw(rng)
            try:
                response = mine.post(callback(serial, ledger.seed))
            except httpx2.TransportError:
                with ledger.changed:
                    ledger.cut.append(serial)
                return
            if response.status_code == 200:
                position = response.headers.get("Projector-Position")
                ledger.acknowledge(serial, int(position) if position else None)
            else:
                ledger.refuse(response.status_code, response.headers.get("Retry-After"))


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
