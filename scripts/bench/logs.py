"""Event logs as a busy app leaves them, written straight into the store's table: seeded, and as long as wanted."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any

import psycopg
from eventsourcing.persistence import JSONTranscoder

from projector.database.postgres_server import PostgresServer
from projector.domain.events import Event, GroupCreated, GroupProfileChanged, MembersJoined, MembersLeft
from projector.event_store.mapper import EventMapper
from projector.event_store.postgres import open_postgres
from projector.event_store.sqlite import open_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_MS = 1_670_000_000_000
LATEST_MS = 3_000


class Town:
    """Groups that are created first, then joined, left and renamed at random, each event up to 3 s late.

    With a number of people, users come again once so many have come to a group, and half of what happens is exits. A
    `bot` is in all groups.
    """

    def __init__(self, groups: int, seed: int, people: int | None = None, bot: str | None = None) -> None:
        self._people = people
        self._bots = () if bot is None else (bot,)
        self._joins, self._exits = (0.94, 0.04) if people is None else (0.5, 0.48)
        self._rng = random.Random(seed)
        self.ids = [f"@TGS#{self._rng.randrange(36**8):09d}{number:05d}" for number in range(groups)]
        self._users = [0] * groups
        self._now = START_MS

    def events(self, count: int) -> Iterator[Event]:
        for number in range(count):
            self._now += self._rng.randrange(20)
            if number < len(self.ids):
                yield self._creation(number)
                continue
            group, kind = self._rng.randrange(len(self.ids)), self._rng.random()
            if kind < self._joins:
                yield self._join(group)
            elif kind < self._joins + self._exits:
                yield self._exit(group)
            else:
                yield self._renaming(group, number)

    def _creation(self, group: int) -> Event:
        owner = self._newcomer(group)
        users = (owner, *self._bots)
        listed = [{"Member_Account": user} for user in users]
        members = {"MemberList": listed, "Owner_Account": owner, "Name": f"group {group}"}
        return self._event(GroupCreated, group, "CreateGroup", members, members=users, owner=owner, name="a group")

    def _join(self, group: int) -> Event:
        users = tuple(self._newcomer(group) for _ in range(1 if self._rng.random() < 0.93 else 2))
        body = {"JoinType": "Apply", "NewMemberList": [{"Member_Account": user} for user in users]}
        return self._event(MembersJoined, group, "NewMemberJoin", body, members=users, join_type="Apply")

    def _exit(self, group: int) -> Event:
        user = self._user(group, self._rng.randrange(self._users[group]))
        body = {"ExitType": "Quit", "ExitMemberList": [{"Member_Account": user}]}
        return self._event(MembersLeft, group, "MemberExit", body, members=(user,), exit_type="Quit")

    def _renaming(self, group: int, number: int) -> Event:
        return self._event(GroupProfileChanged, group, "GroupInfoChanged", {"Name": f"n{number}"}, name=f"n{number}")

    def _newcomer(self, group: int) -> str:
        self._users[group] += 1
        return self._user(group, self._users[group] - 1)

    def _user(self, group: int, number: int) -> str:
        return f"user_{number % (self._people or number + 1) * 7919 % 1_000_003}_{group}"

    def _event(self, event_type: type[Event], group: int, command: str, body: dict[str, Any], **facts: Any) -> Event:
        at = self._now - self._rng.randrange(LATEST_MS)
        about = {"GroupId": self.ids[group], "Type": "Public", "Operator_Account": "admin", "EventTime": at}
        return event_type(
            group_id=self.ids[group],
            occurred_at=at,
            recorded_at=self._now,
            group_type="Public",
            operator="admin",
            platform="RESTAPI",
            callback=json.dumps({"CallbackCommand": f"Group.CallbackAfter{command}", **about, **body}),
            **facts,
        )


def write_log(path: Path, *towns: tuple[Town, int]) -> None:
    """Create a store with so many events of each town."""
    store, _ = open_sqlite(str(path), {}, max_quarantined=1)
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO stored_events VALUES (?, ?, ?, ?)", _rows(towns))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def write_postgres_log(url: str, *towns: tuple[Town, int]) -> None:
    """Create a store with so many events of each town, in an empty database."""
    store, _ = open_postgres(PostgresServer(url), {}, max_quarantined=1, pool_size=5)
    store.head()  # connects, and so creates the tables
    store.close()
    columns = "originator_id, originator_version, topic, state, notification_id"
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.cursor().copy(f"COPY stored_events ({columns}) FROM STDIN") as copied:
            for position, row in enumerate(_rows(towns), 1):
                copied.write_row((*row, position))
        connection.execute("VACUUM ANALYZE stored_events")


def _rows(towns: Sequence[tuple[Town, int]]) -> Iterator[tuple[str, int, str, bytes]]:
    mapper, versions = EventMapper(JSONTranscoder()), dict[str, int]()
    for event in chain.from_iterable(town.events(count) for town, count in towns):
        stored = mapper.to_stored_event(event)
        versions[event.group_id] = versions.get(event.group_id, 0) + 1
        yield event.group_id, versions[event.group_id], stored.topic, stored.state
