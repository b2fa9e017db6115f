"""Identities: equal for repeated deliveries in any spelling, different for different callbacks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.callbacks import translate

JOIN = "Group.CallbackAfterNewMemberJoin"
EXIT = "Group.CallbackAfterMemberExit"
BODY: dict[str, Any] = {
    "CallbackCommand": JOIN,
    "EventTime": 1670574414123,
    "GroupId": "@TGS#1",
    "JoinType": "Apply",
    "NewMemberList": [{"Member_Account": "ann"}, {"Member_Account": "bob"}],
    "Operator_Account": "ann",
    "Type": "Public",
}


def identity(body: dict[str, Any] | str, *, command: str = JOIN, platform: str | None = None, at: int = 0) -> Any:
    raw = body if isinstance(body, str) else json.dumps(body)
    return translate(command, raw.encode(), platform=platform, received_at=1_700_000_000_000 + at).identity


def test_a_repeated_delivery_has_the_same_identity_whenever_it_comes() -> None:
    assert identity(BODY) is not None
    assert identity(BODY) == identity(BODY, at=86_400_000) == identity(BODY, platform="iOS")


@pytest.mark.parametrize(
    "spelling",
    [
        json.dumps(BODY, indent=4),
        json.dumps(BODY, separators=(",", ":")),
        json.dumps(BODY | {"EventTime": "1670574414123"}),
        json.dumps(dict(reversed(BODY.items()))),
        json.dumps(BODY).replace('"ann"', '"\\u0061nn"'),
        "\n" + json.dumps(BODY) + "\n",
    ],
)
def test_another_spelling_of_the_same_content_is_the_same_callback(spelling: str) -> None:
    assert identity(spelling) == identity(BODY)


@given(st.permutations(list(BODY.items())), st.sampled_from([None, 1, 4]), st.booleans(), st.booleans())
def test_key_order_blanks_and_the_type_of_event_time_make_no_difference(
    items: list[tuple[str, Any]], indent: int | None, as_text: bool, escaped: bool
) -> None:
    body = dict(items) | ({"EventTime": str(BODY["EventTime"])} if as_text else {})
    assert identity(json.dumps(body, indent=indent, ensure_ascii=escaped)) == identity(BODY)


@pytest.mark.parametrize(
    "changed",
    [
        {"EventTime": 1670574414124},
        {"GroupId": "@TGS#2"},
        {"Operator_Account": "bob"},
        {"NewMemberList": [{"Member_Account": "bob"}, {"Member_Account": "ann"}]},
        {"NewMemberList": [{"Member_Account": "ann"}]},
        {"JoinType": "Invited"},
        {"Type": ""},
        {"Type": None},
        {"TopicId": "t"},
        {"Unknown": "field"},
        {"Unknown": 1},
        {"Unknown": "1"},
        {"Unknown": 1.5},
        {"Unknown": [1, 2]},
        {"Unknown": [2, 1]},
        {"Unknown": {"a": 1}},
        {"Unknown": True},
        {"Unknown": 2**63},
        {"Unknown": 2**63 + 1},
    ],
    ids=repr,
)
def test_other_content_is_another_callback(changed: dict[str, Any]) -> None:
    assert identity(BODY | changed) != identity(BODY)


def test_no_two_of_many_contents_share_an_identity() -> None:
    values: list[Any] = [None, "", "1", 1, True, False, 0, [], [1], {}, {"a": None}, "null", [[]], [""], 2**63]
    assert len({identity(BODY | {"Unknown": value}) for value in values} | {identity(BODY)}) == len(values) + 1


def test_a_key_moved_to_another_place_is_another_content() -> None:
    assert identity(BODY | {"x": {"a": 1}, "y": {}}) != identity(BODY | {"x": {}, "y": {"a": 1}})


def test_the_same_content_under_another_command_is_another_callback() -> None:
    body = {"GroupId": "g", "EventTime": 1670574414123, "NewMemberList": [], "ExitMemberList": []}
    assert identity(body, command=EXIT) != identity(body, command=JOIN)


@pytest.mark.parametrize("event_time", [None, "", 0])
def test_without_an_event_time_nothing_tells_a_repeat_from_an_equal_change(event_time: Any) -> None:
    assert identity(BODY | {"EventTime": event_time}) is None
    assert identity({key: value for key, value in BODY.items() if key != "EventTime"}) is None
