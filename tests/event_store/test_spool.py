"""The spool: it keeps what the store does not take in time, and forwards it once, in order, when the store is back."""

from __future__ import annotations

import re
import sqlite3
import threading
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from eventsourcing.persistence import JSONTranscoder
from structlog.testing import capture_logs

from projector.event_store import Appended, Candidate, StoreUnavailable
from projector.event_store.mapper import EventMapper
from projector.event_store.pseudonyms import redact_request
from projector.event_store.quarantine import QuarantineFull, UnreadableRequest
from projector.event_store.spool import Spool, SpoolStatus, spool_status
from projector.event_store.store_and_forward import StoreAndForward
from tests.domain import facts as f
from tests.event_store.databases import open_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from projector.event_store import EventStore
    from projector.event_store.quarantine import Quarantine


class MoodyStore:
    """A store that can be made unavailable or silent, or made to refuse a user."""

    def __init__(self, store: EventStore, quarantine: Quarantine) -> None:
        self._store = store
        self.quarantine = quarantine
        self.away = False
        self.refused: str | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.forwarded = threading.Semaphore(0)

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        self.answers.wait()
        if self.away or any(self.refused in getattr(candidate.event, "members", ()) for candidate in batch):
            raise StoreUnavailable("away")
        return self._store.append(batch)

    def head(self) -> int:
        self.answers.wait()
        if self.away:
            raise StoreUnavailable("away")
        return self._store.head()

    def keep(self, request: UnreadableRequest) -> int:
        self.answers.wait()
        if self.away:
            raise StoreUnavailable("away")
        return self.quarantine.keep(request)


def unreadable(body: bytes) -> UnreadableRequest:
    return UnreadableRequest(body, "not JSON", "a.B", None, 1_700_000_000_000)


@contextmanager
def forwarding(path: Path, *, capacity: int = 100) -> Iterator[tuple[StoreAndForward, MoodyStore, EventStore]]:
    store, quarantine = open_sqlite(str(path / "events.db"), {}, 2)
    moody = MoodyStore(store, quarantine)
    spool = Spool(str(path / "spool"), store.mapper, capacity)
    both = StoreAndForward(moody, moody, spool, moody.forwarded.release, timeout_s=0.2)
    both.start()
    with closing(store):
        try:
            yield both, moody, store
        finally:
            moody.answers.set()
            both.stop()


def candidates(*users: str) -> list[Candidate]:
    return [Candidate(f.joined(at, user), None) for at, user in enumerate(users)]


def users(store: EventStore) -> list[str]:
    return [recorded.event.members[0] for recorded in store.read(0, 100)]  # type: ignore[attr-defined]


def test_while_the_store_answers_nothing_goes_into_the_spool(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, _, store):
        assert both.append(candidates("ann", "bob")) == [Appended(1, False), Appended(2, False)]
        assert both.status() == SpoolStatus(0, 0)
        assert users(store) == ["ann", "bob"]


def test_what_the_store_refuses_is_acknowledged_from_the_spool_and_goes_in_when_it_is_back(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, store):
        moody.away = True
        assert both.append(candidates("ann", "bob")) == [Appended(None, False)] * 2
        assert both.append(candidates("cyd")) == [Appended(None, False)]
        assert both.status().depth == 3
        assert spool_status(str(tmp_path / "spool")).depth == 3
        assert both.status().age_s() >= 0
        moody.away = False
        assert moody.forwarded.acquire(timeout=30)
        assert both.status() == SpoolStatus(0, 0)
        assert users(store) == ["ann", "bob", "cyd"]


def test_a_store_that_took_it_after_all_but_too_late_has_it_once(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, store):
        moody.answers.clear()
        assert both.append(candidates("ann")) == [Appended(None, False)]
        assert both.append(candidates("bob")) == [Appended(None, False)], (
            "the store is not called while it does not answer"
        )
        moody.answers.set()
        while both.status().depth:
            assert moody.forwarded.acquire(timeout=30)
        assert sorted(users(store)) == ["ann", "bob"]


def test_an_event_that_the_store_refuses_holds_up_no_other_and_goes_in_when_it_can(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, store):
        moody.away = True
        both.append(candidates("ann", "bad", "cyd"))
        moody.refused, moody.away = "bad", False
        assert moody.forwarded.acquire(timeout=30)
        assert users(store) == ["ann", "cyd"]
        assert both.status().depth == 1
        moody.away = True
        both.append(candidates("dan"))
        moody.away = False
        assert moody.forwarded.acquire(timeout=30)
        assert users(store) == ["ann", "cyd", "dan"]
        moody.refused = None
        assert moody.forwarded.acquire(timeout=30), "what was refused is offered again"
        assert users(store) == ["ann", "cyd", "dan", "bad"]
        assert both.status().depth == 0


def test_what_could_not_be_read_waits_too_and_goes_into_the_quarantine_as_it_came(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, store):
        assert both.keep(unreadable(b"\xff 1")) == 1
        moody.away = True
        assert both.keep(unreadable(b"\xff 2")) is None
        both.append(candidates("ann"))
        assert both.status().depth == 2
        moody.away = False
        assert moody.forwarded.acquire(timeout=30)
        assert both.status().depth == 0
        assert users(store) == ["ann"]
        assert [entry.body for entry in moody.quarantine.waiting()] == [b"\xff 1", b"\xff 2"]
        (_, second) = moody.quarantine.waiting()
        assert (second.reason, second.command, second.platform, second.received_at) == (
            "not JSON",
            "a.B",
            None,
            1_700_000_000_000,
        )


def test_a_quarantine_that_does_not_answer_keeps_nobody_waiting(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, _):
        moody.answers.clear()
        assert [both.keep(unreadable(b"%d" % number)) for number in range(2)] == [None, None]
        moody.answers.set()
        while both.status().depth:
            assert moody.forwarded.acquire(timeout=30)
        assert sorted(entry.body for entry in moody.quarantine.waiting()) == [b"0", b"1"]


def test_a_full_quarantine_is_said_so_and_holds_up_nothing_that_waits(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, store):
        both.keep(unreadable(b"1"))
        moody.away = True
        both.keep(unreadable(b"2"))
        both.keep(unreadable(b"3"))
        both.append(candidates("ann"))
        moody.away = False
        assert moody.forwarded.acquire(timeout=30)
        assert users(store) == ["ann"]
        assert both.status().depth == 1
        with pytest.raises(QuarantineFull):
            both.keep(unreadable(b"4"))
        moody.quarantine.drop(1)
        assert moody.forwarded.acquire(timeout=30)
        assert [entry.body for entry in moody.quarantine.waiting()] == [b"2", b"3"]


def test_a_full_spool_takes_no_more_and_says_so(tmp_path: Path) -> None:
    with forwarding(tmp_path, capacity=2) as (both, moody, store):
        moody.away = True
        both.append(candidates("ann", "bob"))
        with pytest.raises(StoreUnavailable, match="the spool is full: 2 events"):
            both.append(candidates("cyd"))
        moody.away = False
        assert moody.forwarded.acquire(timeout=30)
        assert users(store) == ["ann", "bob"]


def test_what_waits_is_there_after_a_restart_and_is_no_plain_text_where_events_are_none(tmp_path: Path) -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZg=="
    store, _ = open_sqlite(
        str(tmp_path / "events.db"), {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher", "CIPHER_KEY": key}
    )
    with closing(store):
        spool = Spool(str(tmp_path / "spool"), store.mapper, 10)
        spool.keep([Candidate(f.joined(1, "secretive"), b"1" * 16)])
        spool.close()
        written = b"".join(file.read_bytes() for file in tmp_path.glob("spool*"))
        assert b"secretive" not in written
        again = Spool(str(tmp_path / "spool"), store.mapper, 10)
        ((_, candidate),) = again.oldest(0, 10)
        assert candidate == Candidate(f.joined(1, "secretive"), b"1" * 16)
        again.close()


KEYS = ("MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA==")


def environment(key: str) -> dict[str, str]:
    return {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher", "CIPHER_KEY": key}


@pytest.mark.parametrize(
    "damage",
    [
        "state = x'ff00'",
        "state = 7",
        "state = CAST(x'ff' AS TEXT)",
        "topic = CAST(x'ff' AS TEXT)",
        "topic = 'NeverHeardOf'",
        "topic = 'unread'",
    ],
)
@pytest.mark.parametrize("settings", [{}, environment(KEYS[0])], ids=["plain", "cipher"])
def test_an_entry_that_cannot_be_decoded_is_set_aside_and_those_behind_it_are_forwarded(
    tmp_path: Path, settings: dict[str, str], damage: str
) -> None:
    store, quarantine = open_sqlite(str(tmp_path / "events.db"), settings)
    path = str(tmp_path / "spool")
    with closing(store):
        spool = Spool(path, store.mapper, 10)
        spool.keep([Candidate(candidate.event, bytes([at])) for at, candidate in enumerate(candidates("ann", "bad"))])
        spool.keep_unreadable(unreadable(b"1"))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"UPDATE spool SET {damage} WHERE id = 2")
        moody = MoodyStore(store, quarantine)
        both = StoreAndForward(moody, moody, spool, moody.forwarded.release)
        with capture_logs() as logs:
            both.start()
            assert moody.forwarded.acquire(timeout=30)
            status = both.status()
            both.stop()
        assert (status.depth, status.set_aside) == (0, 1)
        assert (spool_status(path).depth, spool_status(path).set_aside) == (0, 1)
        assert re.match(r"the spool has set aside 1 callback that cannot be decoded \(.+\)", *status.complaints())
        assert users(store) == ["ann"]
        assert [entry.body for entry in quarantine.waiting()] == [b"1"]
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
            "set aside callbacks in the spool that cannot be decoded"
        ]


def test_entries_of_another_key_are_set_aside_and_forwarded_after_a_start_with_their_own(tmp_path: Path) -> None:
    path = str(tmp_path / "spool")
    for at, (key, expected) in enumerate([(KEYS[1], ["dan"]), (KEYS[0], ["ann", "bob"])]):
        store, quarantine = open_sqlite(str(tmp_path / f"{at}.db"), environment(key))
        if not at:
            first, _ = open_sqlite(str(tmp_path / "first.db"), environment(KEYS[0]))
            with closing(first):
                before = Spool(path, first.mapper, 10)
                before.keep([Candidate(joined.event, b"%d" % at) for at, joined in enumerate(candidates("ann", "bob"))])
                before.keep_unreadable(unreadable(b"1"))
                before.close()
        with closing(store):
            spool = Spool(path, store.mapper, 10)
            if not at:
                spool.keep([Candidate(f.joined(5, "dan"), b"5")])
            moody = MoodyStore(store, quarantine)
            both = StoreAndForward(moody, moody, spool, moody.forwarded.release)
            both.start()
            assert moody.forwarded.acquire(timeout=30)
            assert (both.status().depth, both.status().set_aside) == (0, 0 if at else 3)
            assert users(store) == expected
            assert [entry.body for entry in quarantine.waiting()] == [b"1"] * at
            both.stop()


def test_an_unexpected_error_of_the_store_does_not_end_the_forwarding(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, store):
        failed = threading.Semaphore(0)

        def failing_head() -> int:
            failed.release()
            raise ValueError("odd")

        moody.away, moody.head = True, failing_head  # type: ignore[method-assign]
        both.append(candidates("ann"))
        assert all(failed.acquire(timeout=30) for _ in range(2))
        moody.away = False
        assert moody.forwarded.acquire(timeout=30)
        assert users(store) == ["ann"]


def test_the_status_of_a_spool_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    with forwarding(tmp_path) as (both, moody, _):
        moody.away = True
        both.append(candidates("ann"))
        with closing(sqlite3.connect(tmp_path / "spool")) as connection:
            connection.execute("DROP TABLE set_aside")
        assert spool_status(str(tmp_path / "spool")).depth == 1


def test_a_spool_that_cannot_be_written_or_read_is_said_so(tmp_path: Path) -> None:
    mapper = EventMapper(JSONTranscoder())
    with pytest.raises(StoreUnavailable, match=r"the spool: .*No such file or directory"):
        Spool(str(tmp_path / "nowhere" / "spool"), mapper, 10)
    (tmp_path / "spool").write_text("this is no database, and was never meant to be one")
    with pytest.raises(StoreUnavailable, match="the spool: file is not a database"):
        Spool(str(tmp_path / "spool"), mapper, 10)
    assert spool_status(str(tmp_path / "none")) == SpoolStatus(0, 0)


def test_two_that_redact_a_spool_at_once_undo_nothing_of_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "spool")
    store, _ = open_sqlite(str(tmp_path / "events.db"), {}, 2)
    with (
        closing(store),
        closing(Spool(path, store.mapper, 10)) as spool,
        closing(Spool(path, store.mapper, 10)) as other,
    ):
        spool.keep_unreadable(unreadable(b"ann and bob \xff"))
        calls: list[UnreadableRequest] = []

        def redacted(request: UnreadableRequest) -> UnreadableRequest:
            calls.append(request)
            if len(calls) == 1:
                other.redact(lambda event: event, partial(redact_request, pseudonyms={"ann": "forgotten-1"}))
            return redact_request(request, {"bob": "forgotten-2"})

        assert spool.redact(lambda event: event, redacted) == (1, 0)
        ((_, entry),) = spool.oldest(0, 10)
        assert entry == unreadable(b"forgotten-1 and forgotten-2 \xff")
        assert len(calls) == 2
