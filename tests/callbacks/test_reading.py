"""Bodies as they are sent: some are read as intended, some repaired, some refused; none crashes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from projector.callbacks import (
    FUTURE_TOLERANCE_MS,
    MAX_ID_BYTES,
    Translation,
    Unreadable,
    carries_group_state,
    command_of,
    translate,
)
from projector.domain.events import MemberChanged, MembersJoined, MembersLeft, TopicsDismissed
from projector.event_store.mapper import EventMapper
from tests.callbacks.payloads import RECORDED

JOIN = "Group.CallbackAfterNewMemberJoin"
EXIT = "Group.CallbackAfterMemberExit"
CREATE = "Group.CallbackAfterCreateGroup"
FULL = "Group.CallbackAfterGroupFull"
DISMISS = "Group.CallbackAfterGroupDestroyed"
PROFILE = "Group.CallbackAfterGroupInfoChanged"
MEMBER = "Group.CallbackAfterMemberFieldChanged"
OWNER = "Group.CallbackAfterChangeGroupOwner"
ATTRIBUTES = "Group.CallbackAfterGroupAttrChanged"
TOPICS = "Group.CallbackAfterTopicDestroyed"
NOW = 1_700_000_000_000

GOOD: dict[str, dict[str, Any]] = {
    JOIN: {"GroupId": "g", "NewMemberList": [{"Member_Account": "u"}]},
    EXIT: {"GroupId": "g", "ExitMemberList": [{"Member_Account": "u"}]},
    CREATE: {"GroupId": "g"},
    FULL: {"GroupId": "g"},
    DISMISS: {"GroupId": "g"},
    PROFILE: {"GroupId": "g"},
    MEMBER: {"GroupId": "g", "Member_Account": "u"},
    OWNER: {"GroupId": "g", "NewOwner_Account": "u"},
    ATTRIBUTES: {"GroupId": "g", "OptionType": "set"},
    TOPICS: {"GroupId": "g"},
    "Group.CallbackAfterCreateTopic": {"GroupId": "g"},
    "Group.CallbackAfterTopicInfoChanged": {"GroupId": "g"},
}


def read(command: str, body: dict[str, Any] | str | bytes, *, platform: str | None = None) -> Translation:
    raw = json.dumps(body) if isinstance(body, dict) else body
    raw = raw.encode() if isinstance(raw, str) else raw
    return translate(command, raw, platform=platform, received_at=NOW)


def read_join(**fields: Any) -> Translation:
    return read(JOIN, GOOD[JOIN] | fields)


def refused(command: str, body: dict[str, Any] | str | bytes) -> str:
    with pytest.raises(Unreadable) as refusal:
        read(command, body)
    return str(refusal.value)


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event_time", "occurred_at"),
    [
        (1670574414123, 1670574414123),
        ("1670574414123", 1670574414123),
        ("001670574414123", 1670574414123),
        (1670574414, 1670574414000),
        ("1670574414", 1670574414000),
        (99_999_999_999, NOW),
        (100_000_000_000, 100_000_000_000),
        (1, 1000),
        (NOW, NOW),
        (NOW + FUTURE_TOLERANCE_MS, NOW + FUTURE_TOLERANCE_MS),
        ((NOW + FUTURE_TOLERANCE_MS) // 1000, NOW + FUTURE_TOLERANCE_MS),
    ],
)
def test_event_time_is_milliseconds_or_seconds_as_an_integer_or_as_digits(event_time: Any, occurred_at: int) -> None:
    event = read_join(EventTime=event_time).event
    assert event.occurred_at == occurred_at
    assert event.recorded_at == NOW


@pytest.mark.parametrize("event_time", [None, "", 0, "0"])
def test_an_event_time_that_says_nothing_leaves_the_moment_of_receipt_and_no_identity(event_time: Any) -> None:
    event, identity, from_future = read_join(EventTime=event_time)
    assert (event.occurred_at, identity, from_future) == (NOW, None, False)
    assert read_join() == (
        event.__class__(
            **{f: getattr(event, f) for f in event.__struct_fields__} | {"callback": json.dumps(GOOD[JOIN])}
        ),
        None,
        False,
    )


@pytest.mark.parametrize(
    "event_time",
    [NOW + FUTURE_TOLERANCE_MS + 1, str(NOW + FUTURE_TOLERANCE_MS + 1), 2**63, 2**64 - 1, 10**25, "9" * 20],
)
def test_a_time_more_than_five_minutes_ahead_is_not_believed_and_still_tells_repeats_apart(event_time: Any) -> None:
    event, identity, from_future = read_join(EventTime=event_time)
    assert (event.occurred_at, from_future) == (NOW, True)
    assert identity is not None
    assert identity == read_join(EventTime=event_time).identity


@pytest.mark.parametrize(
    "event_time",
    [-1, -1670574414123, "-1", "+1", " 1", "1 ", "12a", "1e3", "0x1", "١٢", "²", "9" * 21, "9" * 5000, "1.5",
     1.5, 1670574414123.0, True, False, [], {}, [1670574414123]],
)  # fmt: skip
def test_any_other_event_time_cannot_be_read(event_time: Any) -> None:
    assert "EventTime" in refused(JOIN, GOOD[JOIN] | {"EventTime": event_time})


# --- fields ----------------------------------------------------------------------------------------------------------

WRONG = [1, 1.5, True, {"a": "b"}, [["u"]], [1], [None], [{"Key": "k"}], [{"Member_Account": None}]]
TEXT_FIELDS = {
    **{command: ["GroupId", "Type", "Operator_Account", "TopicId"] for command in GOOD},
    **{
        command: ["GroupId", "Name", "Introduction", "Notification", "FaceUrl", "Owner_Account"]
        for command in (CREATE, DISMISS, PROFILE)
    },
}
LIST_FIELDS = [
    (JOIN, "NewMemberList"),
    (EXIT, "ExitMemberList"),
    (CREATE, "MemberList"),
    (DISMISS, "MemberList"),
    (CREATE, "UserDefinedDataList"),
    (PROFILE, "UserDefinedDataList"),
    (ATTRIBUTES, "GroupAttr"),
]


@pytest.mark.parametrize("wrong", [1, 1.5, True, [], {}, ["x"]], ids=repr)
@pytest.mark.parametrize(
    ("command", "field"),
    [(command, field) for command, fields in TEXT_FIELDS.items() for field in fields]
    + [(JOIN, "JoinType"), (EXIT, "ExitType"), (OWNER, "NewOwner_Account"), (OWNER, "OldOwner_Account"),
       (ATTRIBUTES, "OptionType"), (MEMBER, "Member_Account"), (MEMBER, "Modified_Account"), (MEMBER, "Role"),
       (MEMBER, "NameCard")],
)  # fmt: skip
def test_a_text_of_another_type_cannot_be_read_and_the_refusal_names_the_field(
    command: str, field: str, wrong: Any
) -> None:
    assert field in refused(command, GOOD[command] | {field: wrong})


@pytest.mark.parametrize("wrong", ["u", *WRONG], ids=repr)
@pytest.mark.parametrize(("command", "field"), LIST_FIELDS)
def test_a_list_of_another_shape_cannot_be_read_and_the_refusal_names_the_field(
    command: str, field: str, wrong: Any
) -> None:
    assert field in refused(command, GOOD[command] | {field: wrong})


@pytest.mark.parametrize("command", GOOD)
def test_the_least_that_is_needed_is_enough_and_null_is_absent(command: str) -> None:
    optional = {"Type", "Operator_Account", "TopicId", "Name", "Introduction", "Notification", "FaceUrl", "JoinType",
                "Owner_Account", "UserDefinedDataList", "MemberList", "ExitType", "Role", "NameCard", "GroupAttr",
                "OldOwner_Account", "TopicIdList", "EventTime"}  # fmt: skip
    bare, nulls = read(command, GOOD[command]).event, read(command, GOOD[command] | dict.fromkeys(optional)).event
    assert {f: getattr(bare, f) for f in bare.__struct_fields__ if f != "callback"} == {
        f: getattr(nulls, f) for f in nulls.__struct_fields__ if f != "callback"
    }


@pytest.mark.parametrize("command", GOOD)
@pytest.mark.parametrize("without_group", [{}, {"GroupId": None}, {"GroupId": ""}], ids=repr)
def test_a_group_command_must_name_a_group(command: str, without_group: dict[str, Any]) -> None:
    rest = {key: value for key, value in GOOD[command].items() if key != "GroupId"}
    assert "GroupId" in refused(command, rest | without_group)


def test_the_other_spelling_of_the_group_id_counts_only_where_the_right_one_is_missing() -> None:
    assert read(FULL, {"groupID": "g"}).event.group_id == "g"
    assert read(FULL, {"groupID": "wrong", "GroupId": "g"}).event.group_id == "g"


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (JOIN, {"GroupId": "g"}),
        (JOIN, {"GroupId": "g", "NewMemberList": None}),
        (EXIT, {"GroupId": "g"}),
        (MEMBER, {"GroupId": "g"}),
        (MEMBER, {"GroupId": "g", "Member_Account": ""}),
        (OWNER, {"GroupId": "g"}),
        (OWNER, {"GroupId": "g", "NewOwner_Account": None}),
        (ATTRIBUTES, {"GroupId": "g"}),
        (ATTRIBUTES, {"GroupId": "g", "OptionType": "replace"}),
        (ATTRIBUTES, {"GroupId": "g", "OptionType": ""}),
        (JOIN, {"GroupId": "g", "NewMemberList": [{"Member_Account": "u"}, {"Member_Account": ""}]}),
        (EXIT, {"GroupId": "g", "ExitMemberList": [{}]}),
        (CREATE, {"GroupId": "g", "MemberList": [{"Member_Account": ""}]}),
    ],
)
def test_what_a_command_is_about_must_be_there(command: str, body: dict[str, Any]) -> None:
    refused(command, body)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (FULL, {"GroupId": "{}"}),
        (JOIN, {"GroupId": "g", "NewMemberList": [{"Member_Account": "{}"}]}),
        (EXIT, {"GroupId": "g", "ExitMemberList": [{"Member_Account": "{}"}]}),
        (CREATE, {"GroupId": "g", "MemberList": [{"Member_Account": "{}"}]}),
        (CREATE, {"GroupId": "g", "Owner_Account": "{}"}),
        (OWNER, {"GroupId": "g", "NewOwner_Account": "{}"}),
        (MEMBER, {"GroupId": "g", "Member_Account": "{}"}),
    ],
)
def test_an_id_longer_than_an_index_takes_is_refused_and_one_as_long_is_not(command: str, body: dict[str, Any]) -> None:
    def with_id(value: str) -> dict[str, Any]:
        return json.loads(json.dumps(body, ensure_ascii=False).replace("{}", value))

    assert MAX_ID_BYTES >= 96 * 4
    read(command, with_id("x" * MAX_ID_BYTES))
    read(command, with_id("é" * (MAX_ID_BYTES // 2)))
    refused(command, with_id("x" * (MAX_ID_BYTES + 1)))
    refused(command, with_id("é" * (MAX_ID_BYTES // 2) + "x"))


def test_empty_member_lists_are_read_as_nobody() -> None:
    assert read(JOIN, {"GroupId": "g", "NewMemberList": []}).event.members == ()
    assert read(EXIT, {"GroupId": "g", "ExitMemberList": []}).event.members == ()


def test_join_types_that_no_document_names_are_unknown() -> None:
    for value, known in [("Apply", "Apply"), ("Invited", "Invited"), ("apply", None), ("", None), ("Scan", None)]:
        event = read_join(JoinType=value).event
        assert isinstance(event, MembersJoined)
        assert event.join_type == known


def test_a_role_is_read_without_the_blanks_around_it() -> None:
    event = read(MEMBER, GOOD[MEMBER] | {"Role": "Admin "}).event
    assert isinstance(event, MemberChanged)
    assert event.role == "Admin"


def test_the_member_is_read_from_either_spelling() -> None:
    for spelling in ("Member_Account", "Modified_Account"):
        event = read(MEMBER, {"GroupId": "g", spelling: "u", "Role": "Admin"}).event
        assert isinstance(event, MemberChanged)
        assert event.member == "u"


def test_who_leaves_is_never_taken_from_the_operator() -> None:
    event = read(EXIT, {"GroupId": "g", "Operator_Account": "boss", "ExitMemberList": []}).event
    assert isinstance(event, MembersLeft)
    assert event.members == ()


@pytest.mark.parametrize(
    ("platform", "kept"),
    [
        (None, None), ("", None), ("IOS", "iOS"), ("iOS", "iOS"), ("ios", "iOS"), ("IPad", "iPad"), ("Mac", "macOS"),
        ("macOS", "macOS"), ("restapi", "RESTAPI"), ("Unknown", "Unknown"), ("HarmonyOS", "HarmonyOS"),
    ],
)  # fmt: skip
def test_platforms_are_kept_in_one_spelling_and_new_ones_as_they_come(platform: str | None, kept: str | None) -> None:
    assert read(JOIN, GOOD[JOIN], platform=platform).event.platform == kept


@pytest.mark.parametrize("operation", ["set", "SET", "Modify", "clear", "DELETE"])
def test_attribute_operations_are_read_in_any_case(operation: str) -> None:
    event = read(ATTRIBUTES, GOOD[ATTRIBUTES] | {"OptionType": operation}).event
    assert event.operation == operation.lower()


def test_topic_ids_are_read_from_a_list_or_from_a_string() -> None:
    for value, kept in [(["a", "b"], ("a", "b")), ("a", ("a",)), ([], ()), ("", ())]:
        event = read(TOPICS, {"GroupId": "g", "TopicIdList": value}).event
        assert isinstance(event, TopicsDismissed)
        assert event.topic_ids == kept
    for wrong in (1, {"a": 1}, [1], [None]):
        refused(TOPICS, {"GroupId": "g", "TopicIdList": wrong})


def test_unknown_fields_are_kept_in_the_callback_and_read_as_nothing() -> None:
    event = read_join(Colour="blue", Nested={"GroupId": "other", "deep": [1, {"x": None}]}).event
    assert event.group_id == "g"
    assert json.loads(event.callback)["Nested"]["deep"] == [1, {"x": None}]


# --- characters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("escaped", "read_as"),
    [
        (r"\ud800", "\ufffd"),
        (r"\udfff", "\ufffd"),
        (r"\uD800", "\ufffd"),
        (r"a\udc00b", "a\ufffdb"),
        (r"\ud83d\ude00", "😀"),
        (r"\uD83D\uDE00", "😀"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ud83d\ude00\ude00", "😀\ufffd"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud800\\ud800", "\ufffd\\ud800"),
        (r"\\\ud800", "\\\ufffd"),
        (r"\\ud800", r"\ud800"),
        (r"\\\\ud800", r"\\ud800"),
        (r"\ud800\"", '\ufffd"'),
        (r"\ud800\u0041", "\ufffdA"),
        (r"\ud800\n", "\ufffd\n"),
        (r"\u0000", "\u0000"),
        (r"\u0000\ud800", "\u0000\ufffd"),
        (r"\ue000\ud7ff", "\ue000\ud7ff"),
        ("😀", "😀"),
    ],
)
def test_half_a_surrogate_pair_is_mended_and_everything_else_stays_as_it_is(escaped: str, read_as: str) -> None:
    body = (
        f'{{"GroupId":"g{escaped}","Operator_Account":"{escaped}","UserDefinedDataList":'
        f'[{{"Key":"{escaped}","Value":"{escaped}"}}],"Name":"{escaped}","EventTime":1670574414123,"{escaped}":1}}'
    )
    event, identity, _ = read(PROFILE, body)
    assert event.group_id == "g" + read_as
    assert event.operator == event.name == read_as
    assert event.custom_fields == {read_as: read_as}
    assert event.callback == body
    assert identity is not None
    assert restored(event) == event


def restored(event: Any) -> Any:
    """Return the event as it comes back from storage."""
    from eventsourcing.persistence import JSONTranscoder

    mapper = EventMapper(JSONTranscoder())
    return mapper.to_domain_event(mapper.to_stored_event(event))


@given(st.text(st.sampled_from('\\u"d8Dfabc0é\ud800\udc00\ud83d\ude00\u0000\n'), max_size=12))
@example("\\\\ud800")
def test_any_text_is_read_as_python_reads_it_with_its_halves_mended(text: str) -> None:
    body = json.dumps({"GroupId": "g", "Name": text})
    # Every JSON reader takes two adjacent surrogates as a pair; those without a partner are replaced.
    whole = json.loads(body)["Name"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    meant = json.loads(body)["Name"].encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    name = read(PROFILE, body).event.name
    assert name is not None
    assert name.replace("\ufffd", "") == whole.replace("\ufffd", "") == meant.replace("\ufffd", "")
    assert len(name) == len(json.loads(body)["Name"])
    name.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"true",
        b"1",
        b'"text"',
        b"[]",
        b'[{"GroupId":"g"}]',
        b"{",
        b'{"GroupId":"g"',
        b'{"GroupId":"g",}',
        b'{"GroupId":"g"} x',
        b'{"GroupId":"g"}{"GroupId":"g"}',
        b"{'GroupId':'g'}",
        b'{GroupId:"g"}',
        b'{"GroupId":"g\n"}',
        b'{"GroupId":"g","x":NaN}',
        b'{"GroupId":"g","x":Infinity}',
        b'{"GroupId":"g","x":-Infinity}',
        b'{"GroupId":"g","x":01}',
        b'{"GroupId":"g","x":"\\u12"}',
        b'{"GroupId":"g","x":"\\ud8"}',
        b'{"GroupId":"g","x":"\\x41"}',
        b'{"GroupId":"g\xff"}',
        b'{"GroupId":"g","x":"\xff"}',
        b'{"GroupId":"g","x\xff":1}',
        b'{"GroupId":"g","x":"\xed\xa0\x80"}',
        b'{"GroupId":"g","x":"\xc0\x80"}',
        b'{"GroupId":"g\xe4"}',
        b'\xef\xbb\xbf{"GroupId":"g"}',
        '{"GroupId":"g"}'.encode("utf-16"),
        '{"GroupId":"g"}'.encode("utf-16-le"),
        b"\x00" * 100,
        b"\x1f\x8b\x08\x00",
        b"GroupId=g",
        b"<xml/>",
        b'{"GroupId":"g"} // the group',
    ],
)
def test_what_is_not_a_json_object_in_utf8_is_refused(body: bytes) -> None:
    refused(FULL, body)


def test_blanks_around_the_object_are_read_over_and_kept() -> None:
    body = ' \r\n\t{ "GroupId" :\t"g" }\n'
    assert read(FULL, body).event.callback == body


def test_of_a_key_that_comes_twice_the_last_counts_and_both_are_kept() -> None:
    body = '{"GroupId":"first","GroupId":"last","EventTime":1,"EventTime":1670574414123}'
    event = read(FULL, body).event
    assert (event.group_id, event.occurred_at, event.callback) == ("last", 1670574414123, body)


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["9" * 19, "9" * 30, "9" * 300, "-" + "9" * 30, "1e308", "0." + "1" * 5000, "-0"])
def test_numbers_of_any_reasonable_size_are_read_over(number: str) -> None:
    event, identity, _ = read(FULL, f'{{"GroupId":"g","EventTime":1670574414123,"x":{number}}}')
    assert event.callback.endswith(f'"x":{number}}}')
    assert identity is not None


@pytest.mark.parametrize("field", ["x", "EventTime"])
@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e400", "-1e400", "1e999999999"])
def test_numbers_beyond_all_reason_are_refused_and_crash_nothing(field: str, number: str) -> None:
    refused(FULL, f'{{"GroupId":"g","{field}":{number}}}')


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("field", ["x", "Name", "NewMemberList", "EventTime"])
def test_nesting_of_any_depth_is_read_or_refused_and_crashes_nothing(field: str, opening: str, closing: str) -> None:
    for depth in (1, 10, 400, 490, *range(900, 1010), 5_000, 200_000):
        body = f'{{"EventTime":1670574414123,"{field}":{opening * depth}1{closing * depth},"GroupId":"g"}}'
        try:
            assert read(PROFILE, body).event.callback == body
        except Unreadable:
            assert depth >= 400 or field in ("Name", "EventTime")


def test_long_texts_are_never_refused_for_their_length() -> None:
    event = read(PROFILE, {"GroupId": "g", "Name": "n" * 100_000, "Introduction": "é" * 100_000}).event
    assert len(event.name) == 100_000


def test_thousands_of_members_in_one_callback_are_read() -> None:
    users = [f"user{number}" for number in range(6000)]
    event = read(JOIN, {"GroupId": "g", "NewMemberList": [{"Member_Account": user} for user in users]}).event
    assert event.members == tuple(users)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    sorted({"GroupId", "groupID", "EventTime", "x"} | {key for p in RECORDED for key in json.loads(p.body)})
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.dictionaries(field_names, json_values, max_size=6))
def test_any_json_object_at_all_is_an_event_that_can_be_stored_or_is_refused(
    command: str, fields: dict[str, Any]
) -> None:
    try:
        event = read(command, GOOD[command] | fields).event
    except Unreadable:
        return
    assert restored(event) == event


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(RECORDED), st.data())
def test_a_real_body_damaged_anywhere_is_an_event_that_can_be_stored_or_is_refused(
    payload: Any, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(payload.body)))
    junk = data.draw(st.binary(max_size=3))
    body = payload.body[:at] + junk + payload.body[at + data.draw(st.integers(0, 3)) :]
    command = payload.query.get("CallbackCommand") or JOIN
    try:
        assert command_of({}, body)
        event = read(command, body).event
    except Unreadable:
        return
    assert restored(event) == event
    assert event.callback.encode() == body


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "body", "command"),
    [
        ("a", b'{"CallbackCommand":"a"}', "a"),
        ("a", b"{}", "a"),
        ("a", b'{"CallbackCommand":null}', "a"),
        ("a", b'{"CallbackCommand":""}', "a"),
        ("", b'{"CallbackCommand":"a"}', "a"),
        (None, b'{"CallbackCommand":"a"}', "a"),
        ("a", b'{"CallbackCommand":"b","CallbackCommand":"a"}', "a"),
        (None, b'{"CallbackCommand":"a","Text":"\\ud800"}', "a"),
    ],
)
def test_the_command_is_what_the_url_and_the_body_agree_on(named: str | None, body: bytes, command: str) -> None:
    assert command_of({} if named is None else {"callbackcommand": named}, body) == command


@pytest.mark.parametrize(
    ("named", "body"),
    [
        ("a", b'{"CallbackCommand":"b"}'),
        ("a", b'{"CallbackCommand":"A"}'),
        (None, b"{}"),
        ("", b'{"CallbackCommand":""}'),
        ("a", b'{"CallbackCommand":1}'),
        ("a", b'{"CallbackCommand":["a"]}'),
        ("a", b""),
        ("a", b"[]"),
        ("a", b"not json"),
        ("a" * 5000, b'{"CallbackCommand":"b"}'),
    ],
)
def test_a_command_that_is_missing_or_disputed_is_refused_in_a_line(named: str | None, body: bytes) -> None:
    with pytest.raises(Unreadable) as refusal:
        command_of({} if named is None else {"callbackcommand": named}, body)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "command", ["group.callbackaftergroupfull", "CallbackAfterGroupFull", FULL + " ", "", "Group."]
)
def test_commands_are_compared_to_the_letter(command: str) -> None:
    assert carries_group_state(FULL)
    assert not carries_group_state(command)


def test_a_body_of_an_ignored_command_is_looked_at_for_its_command_only() -> None:
    message = b'{"CallbackCommand":"Group.CallbackAfterSendMsg","MsgBody":[{"Text":"\\ud83d"},' + b"9" * 5000 + b"]}"
    assert command_of({}, message) == "Group.CallbackAfterSendMsg"
