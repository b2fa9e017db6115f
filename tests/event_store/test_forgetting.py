"""Forgetting, on every database: from one moment on nothing that is stored names the account."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from projector import verification
from projector.callbacks import translate
from projector.event_store import Candidate, StoreUnavailable
from projector.event_store.fingerprint import fingerprint
from projector.event_store.pseudonyms import redact_request
from projector.event_store.quarantine import UnreadableRequest
from projector.forgetting import Mentions, begin, find_mentions, finish
from projector.verification import verify_history
from tests.domain import facts as f

if TYPE_CHECKING:
    import pytest

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.event_store.quarantine import Quarantine
    from tests.event_store.databases import Database


def joins(user: str, at: int) -> Candidate:
    body = {"GroupId": f.GROUP, "EventTime": f.EPOCH + at, "NewMemberList": [{"Member_Account": user}]}
    encoded = json.dumps(body).encode()
    event, identity, _ = translate(
        "Group.CallbackAfterNewMemberJoin", encoded, platform=None, received_at=f.EPOCH + 10**9
    )
    return Candidate(event, identity)


def members(store: EventStore) -> list[str]:
    return [recorded.event.members[0] for recorded in store.read(0, 1_000)]  # type: ignore[attr-defined]


def nothing(_: int) -> None:
    pass


def forget(store: EventStore, quarantine: Quarantine, accounts: list[str]) -> tuple[Mentions, dict[str, str]]:
    """Forget accounts in a history without a read model."""
    pseudonyms = {account: begin(store, account) for account in accounts}
    return finish(store, quarantine, None, rebuild=lambda: None, on_progress=nothing), pseudonyms


def test_what_is_appended_after_it_names_a_pseudonym_whoever_appends_and_others_stay(database: Database) -> None:
    store, other = database.open(), database.open()
    other.append([joins("ann", 1)])
    pseudonym = store.forgotten.begin("ann")
    other.append([joins("ann", 2), joins("bob", 3)])
    store.append([joins("ann", 4)])
    assert members(store) == ["ann", pseudonym, "bob", pseudonym]
    assert "ann" not in store.read(1, 1)[0].event.callback


def test_an_account_has_one_pseudonym_for_ever_and_every_account_its_own(database: Database) -> None:
    store = database.open()
    pseudonyms = [store.forgotten.begin(account) for account in ("ann", "bob", "ann", "\u0000\u4e2d")]
    assert pseudonyms[0] == pseudonyms[2]
    assert len({*pseudonyms}) == 3
    store.close()
    again = database.open()
    assert again.forgotten.begin("ann") == pseudonyms[0]
    again.append([joins("\u0000\u4e2d", 1)])
    assert members(again) == [pseudonyms[3]]


def test_a_repeat_of_what_was_redacted_is_still_a_repeat(database: Database) -> None:
    store, quarantine = database.open_both()
    store.append([joins("ann", 1), joins("bob", 2)])
    forget(store, quarantine, ["ann"])
    assert [
        (appended.position, appended.repeated) for appended in store.append([joins("ann", 1), joins("ann", 3)])
    ] == [
        (1, True),
        (3, False),
    ]


def test_only_events_that_name_the_account_are_changed_and_what_they_were_is_kept_as_a_fingerprint(
    database: Database,
) -> None:
    store, quarantine = database.open_both()
    store.append([joins(user, at) for at, user in enumerate(["ann", "bob", "ann", "annie"], 1)])
    before = store.read(0, 10)
    assert find_mentions(store, ["ann", "nobody"], on_progress=nothing)[:3] == (2, 1, 0)
    assert store.read(0, 10) == before
    mentions, names = forget(store, quarantine, ["ann", "nobody"])
    assert (mentions, {*names}) == ((2, 1, 0, 0, 0), {"ann", "nobody"})
    after = store.read(0, 10)
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False, True]
    assert members(store) == [names["ann"], "bob", names["ann"], "annie"]
    assert store.redactions(0, 4) == {1: fingerprint(before[0]), 3: fingerprint(before[2])}
    assert [(recorded.position, recorded.version, recorded.event.occurred_at) for recorded in after] == [
        (recorded.position, recorded.version, recorded.event.occurred_at) for recorded in before
    ]
    assert forget(store, quarantine, ["ann"])[0] == (0, 0, 0, 0, 0)


def test_a_history_that_is_redacted_while_it_is_verified_has_no_fault_and_the_digest_that_it_had(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store, quarantine), other = database.open_both(), database.open()
    users = ["ann", "bob", "eve"]
    store.append([joins(user, at) for at, user in enumerate(users * 3, 1)])
    faults: list[str] = []
    before = verify_history(store, on_fault=faults.append)
    read, still_known = store.read, [*users]

    def read_and_forget(after: int, limit: int) -> list[Recorded]:
        batch = read(after, limit)
        if still_known:
            forget(other, quarantine, [still_known.pop()])
        return batch

    monkeypatch.setattr(store, "read", read_and_forget)
    monkeypatch.setattr(verification, "_BATCH_SIZE", 2)
    assert verify_history(store, on_fault=faults.append, expected=before.digest).digest == before.digest
    assert (faults, still_known) == ([], [])


def test_of_an_event_that_is_redacted_twice_the_first_fingerprint_stays(database: Database) -> None:
    store, quarantine = database.open_both()
    body = '{"GroupId":"g","NewMemberList":[{"Member_Account":"ann"},{"Member_Account":"bob"}]}'
    event = translate("Group.CallbackAfterNewMemberJoin", body.encode(), platform=None, received_at=1).event
    store.append([Candidate(event, None)])
    was = fingerprint(store.read(0, 1)[0])
    for account in ("ann", "bob"):
        forget(store, quarantine, [account])
    assert store.redactions(0, 4) == {1: was}
    (now,) = store.read(0, 1)
    assert "ann" not in now.event.callback
    assert "bob" not in now.event.callback


def test_what_is_in_the_quarantine_loses_the_account_before_and_after(database: Database) -> None:
    store, quarantine = database.open_both()

    def keep(body: bytes, reason: str = "why") -> bytes:
        kept = quarantine.keep(UnreadableRequest(body, reason, "ann's", None, 1))
        entry = quarantine.find(kept)
        assert entry is not None
        return entry.body

    keep(b'{"a":"ann"')
    keep(b"bob \xff")
    assert forget(store, quarantine, ["ann"])[0].quarantined == 2
    pseudonym = store.forgotten.begin("ann")
    assert [entry.body for entry in quarantine.waiting()] == [f'{{"a":"{pseudonym}"'.encode(), b"bob \xff"]
    assert {entry.command for entry in quarantine.waiting()} == {f"{pseudonym}'s"}
    assert keep(b"ann \xff", "ann?") == f"{pseudonym} ".encode() + b"\xff"
    assert quarantine.waiting()[-1].reason == f"{pseudonym}?"
    keep(b'{"a":"ann"')
    assert [entry.times for entry in quarantine.waiting()] == [2, 1, 1]


def test_two_that_redact_a_request_at_once_undo_nothing_of_each_other(database: Database) -> None:
    (_, quarantine), (_, other) = database.open_both(), database.open_both()
    kept = quarantine.keep(UnreadableRequest(b"ann and bob \xff", "why", "ann, bob", None, 1))
    calls: list[UnreadableRequest] = []

    def redacted(request: UnreadableRequest) -> UnreadableRequest:
        calls.append(request)
        if len(calls) == 1:
            other.redact(partial(redact_request, pseudonyms={"ann": "forgotten-1"}))
        return redact_request(request, {"bob": "forgotten-2"})

    assert quarantine.redact(redacted) == (1, 0)
    entry = quarantine.find(kept)
    assert entry is not None
    assert (entry.body, entry.command) == (b"forgotten-1 and forgotten-2 \xff", "forgotten-1, forgotten-2")
    assert len(calls) == 2


def test_while_others_append_nobody_gets_the_account_in_afterwards(database: Database) -> None:
    store, quarantine = database.open_both()
    started, enough = threading.Barrier(3), threading.Event()

    def pour(mine: EventStore, at: int) -> None:
        started.wait()
        while not enough.is_set():
            with suppress(StoreUnavailable):  # the others keep it waiting
                mine.append([joins("ann", at), joins("bob", at)])
                at += 2

    writers = [threading.Thread(target=pour, args=(database.open(), number)) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        started.wait()
        while store.head() < 40:
            pass
        _, names = forget(store, quarantine, ["ann"])
        reached = store.head()
        while store.head() < reached + 40:
            pass
    finally:
        enough.set()
        for writer in writers:
            writer.join()
    assert {*members(store)} == {names["ann"], "bob"}


def test_followers_learn_the_pseudonym_and_every_event_and_group_after_an_interruption_too(
    database: Database,
) -> None:
    store, quarantine = database.open_both()
    store.append([joins(user, at) for at, user in enumerate(["ann", "bob", "ann"], 1)])
    name = begin(store, "ann")
    store.append([joins("ann", 4)])

    def interrupted() -> None:
        raise InterruptedError

    with suppress(InterruptedError):
        finish(store, quarantine, None, rebuild=interrupted, on_progress=nothing)
    assert store.notices.after(0, 10) == []
    finish(store, quarantine, None, rebuild=lambda: None, on_progress=nothing)
    forgotten, reset = store.notices.after(0, 10)
    assert (forgotten.kind, forgotten.subject, forgotten.positions) == ("user.forgotten", name, [1, 3, 4])
    assert (reset.kind, reset.subject) == ("group.reset", f.GROUP)
