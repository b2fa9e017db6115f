"""What an earlier version stored is read for ever: the file beside this one is never changed, only added to."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from eventsourcing.persistence import JSONTranscoder, StoredEvent

from projector.domain.events import TYPES
from projector.event_store.mapper import EventMapper

STORED = json.loads(Path(__file__).with_name("stored_by_0.1.json").read_text())


def test_every_type_of_event_that_callbacks_report_is_among_what_was_stored() -> None:
    assert {row["topic"] for row in STORED} == {
        name for name, event_type in TYPES.items() if event_type.SOURCE == "callback"
    }


@pytest.mark.parametrize("row", STORED, ids=lambda row: row["topic"])
def test_an_event_stored_by_version_0_1_is_read_and_nothing_in_it_is_lost(row: dict[str, str]) -> None:
    stored = StoredEvent(row["originator_id"], 1, row["topic"], row["state"].encode())
    event = EventMapper(JSONTranscoder()).to_domain_event(stored)
    assert type(event) is TYPES[row["topic"]]
    assert event.group_id == row["originator_id"]
    kept = json.loads(msgspec.json.encode(event))
    assert {name: kept[name] for name in json.loads(row["state"])} == json.loads(row["state"])
    assert json.loads(event.callback)["GroupId"] == event.group_id
