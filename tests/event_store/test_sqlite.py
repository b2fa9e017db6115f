"""The event store on SQLite as a file: its format, encryption, and the cost of an append."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from eventsourcing.cipher import AESCipher
from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

from projector.domain.events import TYPES, Event, ObservedMember, Recorded, UndecodableEvent
from projector.event_store import Appended, Candidate, StoreUnavailable
from projector.event_store.quarantine import UnreadableRequest
from tests.domain import facts as f
from tests.event_store.databases import open_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from projector.event_store.sqlite import SQLiteEventStore, SQLiteQuarantine

COMPRESSED = {"COMPRESSOR_TOPIC": "eventsourcing.compressor:ZlibCompressor"}
ENCRYPTED = {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher", "CIPHER_KEY": AESCipher.create_key(16)}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.db")


@contextmanager
def opened(path: str, environment: dict[str, str] | None = None) -> Iterator[tuple[SQLiteEventStore, SQLiteQuarantine]]:
    store, quarantine = open_sqlite(path, environment or {})
    yield store, quarantine
    store.close()


def new(*appended: Event) -> list[Candidate]:
    return [Candidate(event, None) for event in appended]


def rows(path: str, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def written(path: str, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


# --- with the event-sourcing library alone ---------------------------------------------------------------------------


def library(path: str, **settings: str) -> Any:
    """Open the file as one who has the library would."""
    return InfrastructureFactory.construct(
        Environment(env={"SQLITE_DBNAME": path, "ORIGINATOR_ID_TYPE": "text", **settings})
    )


def test_the_library_opens_the_store_through_its_own_settings(path: str) -> None:
    story = [f.created(0, "bob", owner="ann", name="n"), f.joined(1, "cyd", group_id="other"), f.left(2, "bob")]
    with opened(path) as (store, _):
        store.append(new(*story))
    factory = library(
        path,
        PERSISTENCE_MODULE="projector.event_store.sqlite",
        MAPPER_TOPIC="projector.event_store.mapper:EventMapper",
    )
    with factory:
        mapper, recorder = factory.mapper(), factory.application_recorder()
        stored = recorder.select_notifications(1, 10)
        assert [mapper.to_domain_event(stored_event) for stored_event in stored] == story
        assert [
            (stored_event.id, stored_event.originator_id, stored_event.originator_version) for stored_event in stored
        ] == [
            (1, f.GROUP, 1),
            (2, "other", 1),
            (3, f.GROUP, 2),
        ]
        events = factory.event_store(mapper=mapper, recorder=recorder)
        assert list(events.get(f.GROUP)) == [story[0], story[2]]


def test_the_stock_recorder_reads_it_too_and_each_state_is_json(path: str) -> None:
    with opened(path) as (store, _):
        store.append(new(f.joined(1, "é😀\u0000", operator="ann", callback='{"x":1}')))
    with library(path, PERSISTENCE_MODULE="eventsourcing.sqlite") as factory:
        (stored,) = factory.application_recorder().select_notifications(1, 10)
    assert (stored.originator_id, stored.originator_version, stored.topic) == (f.GROUP, 1, "MembersJoined")
    assert json.loads(stored.state) == {
        "group_id": f.GROUP,
        "occurred_at": f.joined(1).occurred_at,
        "recorded_at": f.joined(1).recorded_at,
        "operator": "ann",
        "members": ["é😀\u0000"],
        "callback": '{"x":1}',
    }


@pytest.mark.parametrize("environment", [COMPRESSED, ENCRYPTED, COMPRESSED | ENCRYPTED], ids=["zlib", "aes", "both"])
def test_the_library_reads_what_was_compressed_and_encrypted_with_the_same_settings(
    path: str, environment: dict[str, str]
) -> None:
    with opened(path, environment) as (store, _):
        store.append(new(f.joined(1, "ann")))
    factory = library(
        path,
        PERSISTENCE_MODULE="projector.event_store.sqlite",
        MAPPER_TOPIC="projector.event_store.mapper:EventMapper",
        **environment,
    )
    with factory:
        (stored,) = factory.application_recorder().select_notifications(1, 10)
        assert factory.mapper().to_domain_event(stored) == f.joined(1, "ann")


# --- compressed and encrypted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [COMPRESSED, ENCRYPTED, COMPRESSED | ENCRYPTED], ids=["zlib", "aes", "both"])
def test_what_is_sealed_is_read_again_and_its_plain_text_is_nowhere_in_the_file(
    path: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    body = b'{"Name":"plain-name"}' * 20
    event = f.created(0, "plain-member", name="plain-name", operator="plain-operator", callback=body.decode())
    with opened(path, environment) as (store, quarantine):
        store.append([Candidate(event, b"1" * 16)])
        kept = quarantine.keep(UnreadableRequest(body, "r", "a.B", None, 1))
    files = [file for file in tmp_path.iterdir() if file.name.startswith("events.db")]
    assert files
    assert not any(b"plain-" in file.read_bytes() for file in files)
    with opened(path, environment) as (store, quarantine):
        assert store.read(0, 10) == [Recorded(1, event, 1)]
        assert store.read_group(f.GROUP, 0, 10) == [Recorded(1, event, 1)]
        entry = quarantine.find(kept)
        assert entry is not None
        assert entry.body == body
        again = quarantine.keep(UnreadableRequest(body, "r", "a.B", None, 2))
        assert again == kept
        assert store.append([Candidate(event, b"1" * 16)]) == [Appended(1, True)]


def test_in_plain_files_the_plain_text_is_where_this_suite_looks_for_it(path: str, tmp_path: Path) -> None:
    with opened(path) as (store, _):
        store.append(new(f.joined(0, "plain-member")))
    assert any(b"plain-" in file.read_bytes() for file in tmp_path.iterdir())


def test_without_the_key_every_event_is_there_and_none_can_be_decoded(path: str) -> None:
    with opened(path, ENCRYPTED) as (store, _):
        store.append(new(f.joined(0, "ann"), f.filled(1)))
    for environment in ({}, ENCRYPTED | {"CIPHER_KEY": AESCipher.create_key(16)}):
        with opened(path, environment) as (store, _):
            assert [
                (stored_event.position, stored_event.event.TOPIC, stored_event.event.group_id)
                for stored_event in store.read(0, 10)
            ] == [
                (1, "Undecodable", f.GROUP),
                (2, "Undecodable", f.GROUP),
            ]


def test_without_the_key_a_quarantined_request_is_unavailable_and_not_a_crash(path: str) -> None:
    with opened(path, ENCRYPTED) as (_, quarantine):
        quarantine.keep(UnreadableRequest(b"x", "r", None, None, 1))
    with opened(path, ENCRYPTED | {"CIPHER_KEY": AESCipher.create_key(16)}) as (_, quarantine):
        assert quarantine.count() == 1
        with pytest.raises(StoreUnavailable):
            quarantine.waiting()


# --- stored data outlives the code -----------------------------------------------------------------------------------

BASE = '"group_id":"g","occurred_at":1670574414123,"recorded_at":1670574414200'
TOLD = {"group_id": "g", "occurred_at": 1670574414123, "recorded_at": 1670574414200}
FULL = BASE + ',"group_type":"Public","operator":"o","platform":"iOS","topic_id":"t","callback":"{\\"a\\":1}"'
TOLD_IN_FULL = TOLD | {
    "group_type": "Public",
    "operator": "o",
    "platform": "iOS",
    "topic_id": "t",
    "callback": '{"a":1}',
}
PROFILE = '"name":"n","introduction":"i","notification":"","face_url":"f","owner":"u","custom_fields":{"k":"v"}'
TOLD_PROFILE = {
    "name": "n", "introduction": "i", "notification": "", "face_url": "f", "owner": "u", "custom_fields": {"k": "v"},
}  # fmt: skip
RUN = '"run":7,"asked_at":1670574414100,"reasons":["member.missing"]'
TOLD_RUN = {"run": 7, "asked_at": 1670574414100, "reasons": ("member.missing",)}
STORED = [
    ("GroupCreated", f"{{{BASE}}}", TOLD),
    (
        "GroupCreated",
        f'{{{FULL},{PROFILE},"members":["u","v"]}}',
        TOLD_IN_FULL | TOLD_PROFILE | {"members": ("u", "v")},
    ),
    (
        "MembersJoined",
        f'{{{BASE},"members":["u"],"join_type":"Apply"}}',
        TOLD | {"members": ("u",), "join_type": "Apply"},
    ),
    ("MembersLeft", f'{{{BASE},"members":[],"exit_type":"Quit"}}', TOLD | {"members": (), "exit_type": "Quit"}),
    ("GroupFilled", f"{{{FULL}}}", TOLD_IN_FULL),
    ("GroupProfileChanged", f"{{{BASE},{PROFILE}}}", TOLD | TOLD_PROFILE),
    ("GroupDismissed", f"{{{BASE},{PROFILE}}}", TOLD | TOLD_PROFILE),
    (
        "MemberChanged",
        f'{{{BASE},"member":"u","role":"Admin","name_card":""}}',
        TOLD | {"member": "u", "role": "Admin", "name_card": ""},
    ),
    ("OwnerChanged", f'{{{BASE},"owner":"u","previous_owner":"v"}}', TOLD | {"owner": "u", "previous_owner": "v"}),
    (
        "AttributesChanged",
        f'{{{BASE},"operation":"set","attributes":{{"k":"v"}}}}',
        TOLD | {"operation": "set", "attributes": {"k": "v"}},
    ),
    ("TopicCreated", f"{{{FULL}}}", TOLD_IN_FULL),
    ("TopicsDismissed", f'{{{BASE},"topic_ids":["t"]}}', TOLD | {"topic_ids": ("t",)}),
    ("TopicProfileChanged", f"{{{BASE}}}", TOLD),
    (
        "GroupObserved",
        f'{{{BASE},{PROFILE},"custom_fields_gone":["x"],"created_at":1,"member_limit":200,"is_full":false,{RUN}}}',
        TOLD
        | TOLD_PROFILE
        | TOLD_RUN
        | {"custom_fields_gone": ("x",), "created_at": 1, "member_limit": 200, "is_full": False},
    ),
    (
        "MembersObserved",
        f'{{{BASE},"members":{{"u":[1,"Admin","card"],"v":[2,null,null]}},{RUN}}}',
        TOLD | TOLD_RUN | {"members": {"u": ObservedMember(1, "Admin", "card"), "v": ObservedMember(2)}},
    ),
    ("MembersObservedAbsent", f'{{{BASE},"members":["u"],{RUN}}}', TOLD | TOLD_RUN | {"members": ("u",)}),
    (
        "AttributesObserved",
        f'{{{BASE},"attributes":{{"k":"v"}},"gone":["x"],{RUN}}}',
        TOLD | TOLD_RUN | {"attributes": {"k": "v"}, "gone": ("x",)},
    ),
    ("GroupObservedAbsent", f"{{{BASE},{RUN}}}", TOLD | TOLD_RUN),
    ("RosterObserved", f'{{{BASE},"member_count":2,{RUN}}}', TOLD | TOLD_RUN | {"member_count": 2}),
]


@pytest.mark.parametrize(("topic", "state", "fields"), STORED)
def test_what_the_first_version_stored_is_read_and_stored_the_same(
    path: str, topic: str, state: str, fields: dict[str, Any]
) -> None:
    event = TYPES[topic](**fields)
    with opened(path) as (store, _):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("INSERT INTO stored_events VALUES ('g', 1, ?, ?)", (topic, state.encode()))
            connection.commit()
        assert store.read(0, 10) == [Recorded(1, event, 1)]
        store.append(new(event))
    kept = rows(path, "SELECT topic, state FROM stored_events WHERE rowid = 2")
    assert [(name, json.loads(stored)) for name, stored in kept] == [(topic, json.loads(state))]


def test_every_type_is_among_those_whose_stored_form_is_fixed() -> None:
    assert {topic for topic, _, _ in STORED} == set(TYPES)


def test_a_field_of_a_later_version_is_read_over(path: str) -> None:
    with opened(path) as (store, _):
        written(path, f"INSERT INTO stored_events VALUES ('g', 1, 'GroupFilled', '{{{BASE},\"colour\":\"blue\"}}')")
        assert store.read(0, 10) == [Recorded(1, TYPES["GroupFilled"](**TOLD), 1)]


@pytest.mark.parametrize(
    ("topic", "state", "reason"),
    [
        ("GroupsMerged", f"{{{BASE}}}", "does not know the event"),
        ("GroupFilled", "not json", "GroupFilled"),
        ("GroupFilled", "", "GroupFilled"),
        ("GroupFilled", '{"group_id":"g"}', "occurred_at"),
        ("MembersJoined", f"{{{BASE}}}", "members"),
        ("AttributesChanged", f'{{{BASE},"operation":"invert"}}', "invert"),
    ],
)
def test_an_event_that_cannot_be_decoded_is_read_as_such_between_the_others(
    path: str, topic: str, state: str, reason: str
) -> None:
    with opened(path) as (store, _):
        store.append(new(f.joined(0, "ann", group_id="g")))
        written(path, f"INSERT INTO stored_events VALUES ('g', 2, '{topic}', CAST('{state}' AS BLOB))")
        store.append(new(f.left(1, "ann", group_id="g")))
        for read in (store.read(0, 10), store.read_group("g", 0, 10)):
            assert [recorded.position for recorded in read] == [1, 2, 3]
            event = read[1].event
            assert isinstance(event, UndecodableEvent)
            assert (event.group_id, event.stored_type) == ("g", topic)
            assert reason in event.reason


# --- the file --------------------------------------------------------------------------------------------------------


def test_versions_count_each_stream_from_one_without_a_gap(path: str) -> None:
    with opened(path) as (store, _):
        for batch in range(3):
            store.append(new(f.joined(batch, "a", group_id="g"), f.joined(batch, "a", group_id="h"), f.filled(batch)))
    assert rows(path, "SELECT originator_id, originator_version FROM stored_events ORDER BY rowid") == [
        (group_id, version) for version in (1, 2, 3) for group_id in ("g", "h", f.GROUP)
    ]


def test_a_fault_in_the_middle_of_a_batch_keeps_nothing_of_it_and_leaves_no_gap(path: str) -> None:
    fine, poisoned = Candidate(f.joined(0, "ann"), b"1" * 16), Candidate(f.joined(1, "ann", group_id="poison"), None)
    with opened(path) as (store, _):
        store.append(new(f.filled(0)))
        written(
            path,
            "CREATE TRIGGER fault BEFORE INSERT ON stored_events WHEN NEW.originator_id = 'poison'"
            " BEGIN SELECT RAISE(FAIL, 'disk I/O error'); END",
        )
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            store.append([fine, poisoned, *new(f.filled(2))])
        assert store.head() == 1
        written(path, "DROP TRIGGER fault")
        assert store.append([fine, poisoned]) == [Appended(2, False), Appended(3, False)]


def test_a_full_disk_keeps_nothing_and_the_work_goes_on_when_there_is_room_again(path: str) -> None:
    with opened(path) as (store, _):
        store.append(new(f.filled(0)))
        limit(store, 12)
        with pytest.raises(StoreUnavailable, match="full"):
            store.append(new(f.filled(1), f.filled(2, callback="x" * 200_000)))
        assert store.head() == 1
        limit(store, 1_000_000)
        assert store.append(new(f.filled(1))) == [Appended(2, False)]


def limit(store: SQLiteEventStore, pages: int) -> None:
    for connection in connections(store):
        connection.execute(f"PRAGMA max_page_count={pages}")


def connections(store: SQLiteEventStore) -> list[sqlite3.Connection]:
    """Return the raw connections that wait in the store's pool: one, while nothing is under way."""
    pool: Any = store._recorder.datastore.pool
    return [connection._sqlite_conn for connection in pool._pool]


def test_while_another_holds_the_write_lock_the_store_is_unavailable_and_readable(path: str) -> None:
    with opened(path, {"SQLITE_LOCK_TIMEOUT": "1"}) as (store, quarantine), closing(sqlite3.connect(path)) as other:
        store.append(new(f.filled(0)))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.append(new(f.filled(1)))
        assert store.head() == 1
        assert len(store.read(0, 10)) == 1
        assert quarantine.count() == 0
        other.execute("ROLLBACK")
        assert store.append(new(f.filled(1))) == [Appended(2, False)]


def test_every_commit_is_synced_in_wal_mode(path: str) -> None:
    with opened(path) as (store, _):
        store.append(new(f.filled(0)))
        for connection in connections(store):
            pragmas = {
                name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
            }
            assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_vacuum_leaves_every_position_as_it_is(path: str) -> None:
    with opened(path) as (store, _):
        store.append(new(*(f.joined(at, "ann", group_id=f"g{9 - at}") for at in range(10))))
        before = store.read(0, 100)
        written(path, "VACUUM")
        assert store.read(0, 100) == before
        assert store.append(new(f.filled(0))) == [Appended(11, False)]


@pytest.mark.parametrize("make", ["missing directory", "directory", "no database"])
def test_a_path_where_no_store_can_be_is_said_to_be_unavailable(tmp_path: Path, make: str) -> None:
    path = tmp_path / "missing" / "events.db" if make == "missing directory" else tmp_path / "events.db"
    if make == "directory":
        path.mkdir()
    if make == "no database":
        path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable, match="SQLite"):
        open_sqlite(str(path), {})


@pytest.mark.parametrize("name", ["with space.db", "ünïcode 😀.db", "percent%20.db", "hash#.db", "question?.db"])
def test_a_file_name_may_hold_any_character(tmp_path: Path, name: str) -> None:
    with opened(str(tmp_path / name)) as (store, _):
        store.append(new(f.filled(0)))
    assert (tmp_path / name).exists()


# --- what an append costs --------------------------------------------------------------------------------------------


class Counting:
    """Counts the instructions of SQLite's virtual machine, which do not depend on the machine's own speed."""

    def __init__(self, store: SQLiteEventStore) -> None:
        self._connections = connections(store)
        self.instructions = 0

    def __enter__(self) -> Counting:
        for connection in self._connections:
            connection.set_progress_handler(self._count, 1)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.set_progress_handler(None, 1)

    def _count(self) -> int:
        self.instructions += 1
        return 0


def grow(store: SQLiteEventStore, start: int, to: int) -> None:
    for begin in range(start, to, 1000):
        times = range(begin, min(begin + 1000, to))
        store.append([Candidate(f.joined(time, "ann"), b"%016d" % time) for time in times])


def costs(store: SQLiteEventStore, length: int) -> dict[str, int]:
    """Return the cost of each use of a stream of this length; reads are of its last events."""
    uses = {
        "read": lambda: store.read(length - 5, 5),
        "read_group": lambda: store.read_group(f.GROUP, length - 5, 5),
        "head": store.head,
        "repeat": lambda: store.append([Candidate(f.joined(3, "ann"), b"%016d" % 3)]),
        "append": lambda: store.append([Candidate(f.joined(length, "ann"), b"%016d" % length)]),
    }
    measured = {}
    for name, use in uses.items():
        with Counting(store) as counting:
            use()
        measured[name] = counting.instructions
    return measured


def test_no_append_and_no_read_costs_more_because_the_stream_is_longer(path: str) -> None:
    with opened(path) as (store, _):
        grow(store, 0, 10)
        short = costs(store, 10)
        grow(store, 11, 20_001)
        long = costs(store, 20_001)
    assert min(short.values()) > 0
    assert {name: long[name] - short[name] for name in short if long[name] > short[name] * 1.2} == {}
