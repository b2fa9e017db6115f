"""The app that a store and a spool belong to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from eventsourcing.persistence import JSONTranscoder

from projector.event_store import Candidate, OtherApp
from projector.event_store.mapper import EventMapper
from projector.event_store.spool import Spool
from tests.domain import facts as f

if TYPE_CHECKING:
    from pathlib import Path

    from tests.event_store.databases import Database

LARGEST = 2**63 - 1


def test_a_store_belongs_to_the_first_app_that_it_is_opened_for(database: Database) -> None:
    database.open().append([Candidate(f.joined(1, "ann"), None)])  # as earlier versions left it
    for _ in range(2):
        database.open().require_app(LARGEST)
    with pytest.raises(OtherApp, match=f"belongs to SDKAppID {LARGEST}, but PROJECTOR_SDK_APP_ID is 7; "):
        database.open().require_app(7)


def test_of_apps_that_claim_a_new_store_at_the_same_time_one_gets_it(database: Database) -> None:
    stores, owners = [database.open() for _ in range(4)], []
    start = threading.Barrier(4)

    def claim(app: int) -> None:
        start.wait()
        try:
            stores[app].require_app(app + 1)
        except OtherApp:
            return
        owners.append(app)

    threads = [threading.Thread(target=claim, args=(app,)) for app in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(owners) == 1


def test_a_store_of_another_app_that_was_unavailable_at_the_start_takes_no_event_later(database: Database) -> None:
    database.open().require_app(7)
    store = database.open()
    with pytest.raises(OtherApp):
        store.require_app(8)
    with pytest.raises(OtherApp):
        store.append([Candidate(f.joined(1, "ann"), None)])
    assert store.head() == 0


def test_a_spool_belongs_to_the_first_app_that_it_is_opened_for(tmp_path: Path) -> None:
    mapper = EventMapper(JSONTranscoder())
    for app in (None, 7, 7):
        Spool(str(tmp_path / "spool"), mapper, 10, app).close()
    with pytest.raises(OtherApp, match="spool belongs to SDKAppID 7, but PROJECTOR_SDK_APP_ID is 8; "):
        Spool(str(tmp_path / "spool"), mapper, 10, 8)
