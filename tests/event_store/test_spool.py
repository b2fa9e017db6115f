"""The spool: it keeps what the store does not take in time, and forwards it once, in order, when the store is back."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from eventsourcing.persistence import JSONTranscoder

from projector.event_store import Appended, Candidate, StoreUnavailable
from projector.event_store.mapper import EventMapper
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


def test_a_spool_that_cannot_be_written_or_read_is_said_so(tmp_path: Path) -> None:
    mapper = EventMapper(JSONTranscoder())
    with pytest.raises(StoreUnavailable, match=r"the spool: .*No such file or directory"):
        Spool(str(tmp_path / "nowhere" / "spool"), mapper, 10)
    (tmp_path / "spool").write_text("this is no database, and was never meant to be one")
    with pytest.raises(StoreUnavailable, match="the spool: file is not a database"):
        Spool(str(tmp_path / "spool"), mapper, 10)
    assert spool_status(str(tmp_path / "none")) == SpoolStatus(0, 0)
