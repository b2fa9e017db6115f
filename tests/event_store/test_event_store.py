"""The contract of the event store and its quarantine, on every database there is."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from itertools import count
from threading import Barrier as ThreadBarrier
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projector.domain import events
from projector.domain.events import TYPES, Event
from projector.event_store import Appended, Candidate
from projector.event_store.quarantine import QuarantineFull, UnreadableRequest
from projector.event_store.reading import MAX_BATCH_BYTES, group_history, history, stream
from tests.domain import facts as f
from tests.domain.strategies import any_event
from tests.event_store.databases import OPENERS
from tests.event_store.processes import append_batches, open_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.event_store import EventStore
    from projector.event_store.quarantine import Quarantine
    from tests.event_store.databases import Database

on_fresh_databases = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""The fixture is one database after another: each example begins with `renew`."""


def new(*appended: Event) -> list[Candidate]:
    return [Candidate(event, None) for event in appended]


def positions(appended: Sequence[Appended]) -> list[int]:
    return [result.position for result in appended]


def joins(number: int, *, group_id: str = f.GROUP, start: int = 0) -> list[Event]:
    return [f.joined(start + at, "ann", group_id=group_id) for at in range(number)]


# --- append and read -------------------------------------------------------------------------------------------------


def test_an_empty_store_has_nothing_before_the_first_event(database: Database) -> None:
    store = database.open()
    assert store.head() == 0
    assert store.read(0, 10) == []
    assert store.read_group(f.GROUP, 0, 10) == []


def test_positions_begin_at_one_and_have_no_gaps_over_batches_groups_and_reopening(database: Database) -> None:
    given_out = []
    for batch in range(3):
        store = database.open()
        given_out += positions(store.append(new(*joins(4, start=batch * 10), *joins(2, group_id="other"))))
        assert store.head() == given_out[-1]
        store.close()
    assert given_out == list(range(1, 19))


def test_an_empty_batch_appends_nothing(database: Database) -> None:
    store = database.open()
    assert store.append([]) == []
    assert store.head() == 0


def test_events_are_read_in_the_order_given_behind_a_position_and_up_to_a_limit(database: Database) -> None:
    store = database.open()
    appended = joins(10)
    store.append(new(*appended))
    everything = store.read(0, 100)
    assert everything == f.recorded(appended)
    assert store.read(4, 3) == everything[4:7]
    assert store.read(9, 3) == everything[9:]
    assert store.read(10, 3) == []
    assert store.read(1000, 3) == []


def test_reading_page_by_page_meets_every_event_once(database: Database) -> None:
    store = database.open()
    store.append(new(*joins(23)))
    seen: list[int] = []
    while page := store.read(seen[-1] if seen else 0, 5):
        seen += [recorded.position for recorded in page]
    assert seen == list(range(1, 24))


def test_a_groups_events_are_read_behind_its_own_versions_with_their_places_in_the_whole(database: Database) -> None:
    store = database.open()
    store.append(new(f.joined(0, "ann"), f.joined(1, "bob", group_id="other"), f.left(2, "ann"), f.joined(3, "cyd")))
    everything = store.read(0, 10)
    assert store.read_group(f.GROUP, 0, 10) == [everything[0], everything[2], everything[3]]
    assert store.read_group(f.GROUP, 1, 1) == [everything[2]]
    assert store.read_group(f.GROUP, 3, 10) == []
    assert store.read_group("other", 0, 10) == [everything[1]]
    assert store.read_group("unknown", 0, 10) == []


@pytest.mark.parametrize("group_id", ["a/b %", "\u0000", "g\u0000a", "é😀", "g' OR 1=1 --", "G", "g ", "x" * 1024])
def test_groups_with_odd_ids_are_kept_apart(database: Database, group_id: str) -> None:
    store = database.open()
    store.append(new(f.joined(0, "ann", group_id="g"), f.joined(1, "bob", group_id=group_id)))
    assert [recorded.event.group_id for recorded in store.read_group(group_id, 0, 10)] == [group_id]
    assert [recorded.position for recorded in store.read_group("g", 0, 10)] == [1]


@on_fresh_databases
@given(st.lists(st.lists(any_event, max_size=5), max_size=4))
def test_every_event_is_read_as_it_was_appended(database: Database, batches: list[list[Event]]) -> None:
    database.renew()
    store = database.open()
    for batch in batches:
        store.append(new(*batch))
    appended = [event for batch in batches for event in batch]
    assert store.read(0, 100) == f.recorded(appended)
    assert database.open().read(0, 100) == store.read(0, 100)


def test_a_callback_is_kept_to_the_letter(database: Database) -> None:
    callback = '{ "GroupId" :"g",\t"x":"\\ud800 \\u0000", "x": 1e400, "n": 99999999999999999999999999 }\n'
    store = database.open()
    store.append(new(f.filled(0, callback=callback)))
    assert store.read(0, 1)[0].event.callback == callback


def test_a_callback_of_a_megabyte_is_kept(database: Database) -> None:
    store = database.open()
    store.append(new(f.joined(0, *(f"user{number}" for number in range(6000)), callback="{" + " " * 2**20 + "}")))
    (recorded,) = store.read(0, 1)
    assert len(recorded.event.callback) == 2**20 + 2


# --- identity --------------------------------------------------------------------------------------------------------


def test_a_repeat_is_the_event_that_is_there_inside_a_batch_over_batches_and_after_reopening(
    database: Database,
) -> None:
    first, second = Candidate(f.joined(0, "ann"), b"1" * 16), Candidate(f.joined(1, "bob"), b"2" * 16)
    store = database.open()
    assert store.append([first, second, first]) == [Appended(1, False), Appended(2, False), Appended(1, True)]
    assert store.append([second, *new(f.filled(2))]) == [Appended(2, True), Appended(3, False)]
    store.close()
    again = database.open()
    assert again.append([first, second]) == [Appended(1, True), Appended(2, True)]
    assert again.head() == 3


def test_events_without_an_identity_are_all_appended(database: Database) -> None:
    store = database.open()
    assert store.append(new(f.filled(0), f.filled(0))) == [Appended(1, False), Appended(2, False)]
    assert store.append(new(f.filled(0))) == [Appended(3, False)]


def test_it_is_the_identity_that_tells_and_not_the_event(database: Database) -> None:
    store = database.open()
    store.append([Candidate(f.joined(0, "ann"), b"1" * 16)])
    assert store.append([Candidate(f.left(5, "bob", group_id="other"), b"1" * 16)]) == [Appended(1, True)]
    assert store.append([Candidate(f.joined(0, "ann"), b"2" * 16)]) == [Appended(2, False)]


@on_fresh_databases
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.lists(st.tuples(st.sampled_from(["g", "h"]), st.none() | st.sampled_from([b"a", b"b", b"c"]))),
        ),
        max_size=6,
    )
)
def test_any_batches_of_new_and_repeated_events_are_what_a_list_and_a_dictionary_make_of_them(
    database: Database, batches: list[tuple[bool, list[tuple[str, bytes | None]]]]
) -> None:
    database.renew()
    store = database.open()
    kept: list[Event] = []
    known: dict[bytes, int] = {}
    times = count()
    for reopening, batch in batches:
        if reopening:
            store.close()
            store = database.open()
        candidates = [Candidate(f.joined(next(times), "ann", group_id=group), identity) for group, identity in batch]
        expected = []
        for event, identity in candidates:
            if identity in known:
                expected.append(Appended(known[identity], True))
                continue
            kept.append(event)
            if identity:
                known[identity] = len(kept)
            expected.append(Appended(len(kept), False))
        assert store.append(candidates) == expected
    everything = f.recorded(kept)
    assert store.head() == len(kept)
    assert store.read(0, 1000) == everything
    for group in ("g", "h"):
        of_group = [recorded for recorded in everything if recorded.event.group_id == group]
        assert [store.read_group(group, version, 1) for version in range(len(of_group))] == [
            [recorded] for recorded in of_group
        ]


# --- many at once ----------------------------------------------------------------------------------------------------


def test_threads_that_append_at_once_leave_no_gap(database: Database) -> None:
    store = database.open()
    start = ThreadBarrier(4)
    given_out: list[int] = []

    def append(writer: int) -> None:
        start.wait()
        for batch in range(10):
            given_out.extend(positions(store.append(new(*joins(3, group_id=f"g{writer}", start=batch)))))

    threads = [Thread(target=append, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given_out) == list(range(1, 121))
    assert [recorded.position for recorded in store.read(0, 1000)] == list(range(1, 121))


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_all_open_it(database: Database) -> None:
    spawn = multiprocessing.get_context("spawn")
    locations = database.others(15)
    with spawn.Manager() as manager, spawn.Pool(2) as pool:
        start = manager.Barrier(2)
        opening = [pool.apply_async(open_each, (database.kind, locations, start)) for _ in range(2)]
        assert [result.get() for result in opening] == [[], []]
        pool.close()
        pool.join()


@pytest.mark.slow
def test_processes_that_append_at_once_leave_no_gap_and_no_repeat(database: Database) -> None:
    database.open()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, spawn.Pool(2) as pool:
        start = manager.Barrier(2)
        writing = [
            pool.apply_async(append_batches, (database.kind, database.location, start, writer, 25, 4))
            for writer in range(2)
        ]
        appended = [position for result in writing for position in result.get()]
        pool.close()
        pool.join()
    store = database.open()
    assert sorted(position for _, position in appended) == list(range(1, 201))
    assert store.head() == 200
    times = {recorded.position: recorded.event.occurred_at for recorded in store.read(0, 1000)}
    assert times == {position: f.joined(time).occurred_at for time, position in appended}
    for group in ("g0", "g1", "g2"):
        of_group = store.read_group(group, 0, 1000)
        assert of_group == [recorded for recorded in store.read(0, 1000) if recorded.event.group_id == group]


@pytest.mark.slow
def test_what_was_appended_is_there_after_the_process_is_killed_in_the_middle_of_it(database: Database) -> None:
    command = [sys.executable, "-m", "tests.event_store.processes", database.kind, database.location]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        acknowledged = [tuple(map(int, next(writer.stdout).split())) for _ in range(100)]
        writer.kill()
        acknowledged += [tuple(map(int, line.split())) for line in writer.stdout if line.endswith("\n")]
    store = database.open()
    kept = [(recorded.event.occurred_at, recorded.position) for recorded in store.read(0, 100_000)]
    assert kept[: len(acknowledged)] == [(f.joined(time).occurred_at, position) for time, position in acknowledged]
    assert [position for _, position in kept] == list(range(1, len(kept) + 1))
    assert positions(store.append(new(f.filled(0)))) == [len(kept) + 1]


# --- names -----------------------------------------------------------------------------------------------------------


def test_the_names_of_the_stored_types_are_these_for_ever() -> None:
    assert {name: event_type.__name__ for name, event_type in TYPES.items()} == {
        name: name
        for name in (
            "GroupCreated", "MembersJoined", "MembersLeft", "GroupFilled", "GroupProfileChanged", "GroupDismissed",
            "MemberChanged", "OwnerChanged", "AttributesChanged", "TopicCreated", "TopicsDismissed",
            "TopicProfileChanged", "GroupObserved", "MembersObserved", "MembersObservedAbsent", "AttributesObserved",
            "GroupObservedAbsent", "RosterObserved",
        )
    }  # fmt: skip
    assert [event_type.TOPIC for event_type in TYPES.values()] == list(TYPES)
    subclasses = {value for value in vars(events).values() if isinstance(value, type) and issubclass(value, Event)}
    assert subclasses - set(TYPES.values()) == {
        events.Event,
        events.ProfileFact,
        events.Observation,
        events.UndecodableEvent,
    }


# --- quarantine ------------------------------------------------------------------------------------------------------


def keep(quarantine: Quarantine, body: bytes, **fields: str | int | None) -> int:
    usual = UnreadableRequest(body, "not JSON", "a.B", "iOS", 1_700_000_000_000)
    return quarantine.keep(usual._replace(**fields))


def both(database: Database) -> tuple[EventStore, Quarantine]:
    return database.open_both()


def test_what_is_kept_waits_as_it_came_and_is_there_after_reopening(database: Database) -> None:
    store, quarantine = both(database)
    body = b"\x00\xff\xfe not JSON \xed\xa0\x80\n"
    kept = keep(quarantine, body, reason="why é", command=None, platform=None)
    store.close()
    _, again = both(database)
    (entry,) = again.waiting()
    assert entry == (kept, 1_700_000_000_000, 1, "why é", None, None, body, None)
    assert again.find(kept) == entry
    assert again.count() == 1


def test_the_same_bytes_again_are_counted_and_not_kept_twice(database: Database) -> None:
    _, quarantine = both(database)
    first = keep(quarantine, b"x")
    assert keep(quarantine, b"x", received_at=1_700_000_000_999, reason="another version of us says more") == first
    other = keep(quarantine, b"y")
    assert other != first
    assert [(entry.id, entry.times, entry.received_at) for entry in quarantine.waiting()] == [
        (first, 2, 1_700_000_000_000),
        (other, 1, 1_700_000_000_000),
    ]
    assert quarantine.count() == 2


def test_the_same_bytes_under_another_command_are_another_request(database: Database) -> None:
    _, quarantine = both(database)
    assert len({keep(quarantine, b"x", command=command) for command in ("a.B", "a.C", None)}) == 3


def test_an_empty_body_is_kept_too(database: Database) -> None:
    _, quarantine = both(database)
    kept = keep(quarantine, b"")
    entry = quarantine.find(kept)
    assert entry is not None
    assert entry.body == b""


def test_what_is_released_waits_no_longer_and_can_still_be_found(database: Database) -> None:
    store, quarantine = both(database)
    first, second = keep(quarantine, b"x"), keep(quarantine, b"y")
    (appended,) = store.append(new(f.joined(0, "ann")))
    quarantine.release(first, appended.position)
    assert [entry.id for entry in quarantine.waiting()] == [second]
    assert quarantine.count() == 1
    released = quarantine.find(first)
    assert released is not None
    assert (released.position, released.body) == (appended.position, b"x")
    assert keep(quarantine, b"x") == first
    assert quarantine.count() == 1


def test_what_waits_comes_in_pages_without_gap_or_repeat(database: Database) -> None:
    _, quarantine = both(database)
    kept = [keep(quarantine, b"%d" % number) for number in range(7)]
    quarantine.release(kept[3], 1)
    seen: list[int] = []
    while page := quarantine.waiting(seen[-1] if seen else 0, 2):
        seen += [entry.id for entry in page]
    assert seen == [entry_id for entry_id in kept if entry_id != kept[3]]


def test_what_was_never_kept_is_not_found_and_releasing_it_does_nothing(database: Database) -> None:
    _, quarantine = both(database)
    assert quarantine.find(99) is None
    quarantine.release(99, 1)
    assert quarantine.waiting() == []
    assert quarantine.count() == 0


def test_keeping_a_request_takes_no_position_from_the_events(database: Database) -> None:
    store, quarantine = both(database)
    keep(quarantine, b"x")
    assert positions(store.append(new(f.filled(0)))) == [1]


def test_a_quarantine_that_is_full_keeps_nothing_new_and_still_counts_what_it_has(database: Database) -> None:
    store, quarantine = OPENERS[database.kind](database.location, {}, 2)
    first, _ = keep(quarantine, b"1"), keep(quarantine, b"2")
    with pytest.raises(QuarantineFull, match="2 callbacks wait"):
        keep(quarantine, b"3")
    assert keep(quarantine, b"1") == first
    quarantine.release(first, 1)
    third = keep(quarantine, b"3")
    with pytest.raises(QuarantineFull):
        keep(quarantine, b"4")
    quarantine.drop(third)
    assert quarantine.find(third) is None
    assert quarantine.count() == 1
    store.close()


def test_large_events_come_a_few_at_a_time_and_none_is_left_out(database: Database) -> None:
    store = database.open()
    large = [f.joined(at, "ann", callback="x" * (MAX_BATCH_BYTES // 4)) for at in range(12)]
    store.append(new(*large))
    for few in (store.read(0, 100), store.read_group(f.GROUP, 0, 100), next(store.read_streams(12))):
        assert 1 <= len(few) < 12
    assert [recorded.position for recorded in history(store, 0, 100)] == list(range(1, 13))
    assert [recorded.version for recorded in group_history(store, f.GROUP, 3, 100)] == list(range(4, 13))
    assert [recorded.version for batch in store.read_streams(12) for recorded in batch] == list(range(1, 13))
    assert [recorded.version for batch in stream(store, f.GROUP, 10) for recorded in batch] == list(range(1, 11))
