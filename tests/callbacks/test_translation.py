"""Every payload file is translated and folded into the expected state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from projector.callbacks import Unreadable, carries_group_state, command_of, parameters, translate
from projector.domain.events import TYPES, Recorded, concerns_group
from tests import oracle, shown
from tests.callbacks.payloads import IGNORED, PAYLOADS, RECORDED, UNREADABLE, Payload

if TYPE_CHECKING:
    from projector.callbacks import Translation

RECEIVED_AT = 1_800_000_000_000


def translated(payload: Payload) -> Translation:
    query = parameters(payload.target(1400000001).encode())
    command = command_of(query, payload.body)
    assert carries_group_state(command)
    return translate(command, payload.body, platform=query.get("optplatform"), received_at=RECEIVED_AT)


def by_name(payload: Payload) -> str:
    return payload.name


def subset(of: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    return {key: of[key] for key in keys}


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("payload", RECORDED, ids=by_name)
def test_a_group_callback_becomes_the_event_it_means(payload: Payload) -> None:
    event, identity, from_future = translated(payload)
    assert payload.recorded == event.TOPIC
    assert {field: listed(getattr(event, field)) for field in payload.event} == payload.event
    assert event.callback.encode() == payload.body
    assert event.recorded_at == RECEIVED_AT
    event_time = json.loads(payload.body).get("EventTime")
    assert event.occurred_at == (RECEIVED_AT if event_time is None else int(event_time))
    assert (identity is None) == (event_time is None)
    assert not from_future


@pytest.mark.parametrize("payload", RECORDED, ids=by_name)
def test_from_that_event_alone_follows_what_the_file_says(payload: Payload) -> None:
    event = translated(payload).event
    assert concerns_group(event) == (payload.group is not None)
    state = shown.folded([Recorded(1, event)])
    assert state == oracle.everything(oracle.facts([Recorded(1, event)]))
    group, members = state.get(event.group_id, (None, {}))
    assert (group and payload.group and subset(group, payload.group)) == payload.group
    assert {user: subset(member, payload.members[user]) for user, member in members.items()} == payload.members


@pytest.mark.parametrize("payload", IGNORED, ids=by_name)
def test_any_other_command_is_recognised_as_not_to_be_recorded(payload: Payload) -> None:
    query = parameters(payload.target(1400000001).encode())
    assert not carries_group_state(command_of(query, payload.body))


@pytest.mark.parametrize("payload", UNREADABLE, ids=by_name)
def test_what_cannot_be_read_is_refused(payload: Payload) -> None:
    with pytest.raises(Unreadable):
        translated(payload)


def test_there_is_a_payload_for_every_type_of_event_that_callbacks_report() -> None:
    reported = {name for name, event_type in TYPES.items() if event_type.SOURCE == "callback"}
    assert {payload.recorded for payload in RECORDED} == reported


def test_no_payload_file_expects_what_it_cannot() -> None:
    for payload in PAYLOADS:
        assert payload.status in (200, 400)
        assert payload.recorded or not (payload.event or payload.group or payload.members)
        if payload.group:
            assert payload.group["member_count"] == len(payload.members)
            assert payload.group["group_id"] == payload.group_id
