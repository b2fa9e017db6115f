"""A redacted event mentions no forgotten user anywhere; everything else is unchanged."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.callbacks import command_of, translate
from projector.domain import events
from projector.domain.redaction import mentioned, mentioned_in_unreadable, redact, redact_unreadable
from tests.callbacks.payloads import RECORDED, Payload
from tests.domain.strategies import any_event

NAMES = {"alice": "forgotten-1"}


def joined(body: str, *members: str, **more: Any) -> events.MembersJoined:
    return events.MembersJoined(
        group_id="@TGS#alice", occurred_at=1, recorded_at=2, members=members, callback=body, **more
    )


def redacted_body(body: str, *members: str) -> str:
    return redact(joined(body, *members), NAMES).callback


def test_accounts_are_replaced_where_they_stand_and_others_stay() -> None:
    event = joined("{}", "alice", "alice-b", "malice", "Alice", operator="alice")
    assert redact(event, NAMES).members == ("forgotten-1", "alice-b", "malice", "Alice")
    assert redact(event, NAMES).operator == "forgotten-1"
    owner = events.OwnerChanged(group_id="g", occurred_at=1, recorded_at=1, owner="alice", previous_owner="bob")
    assert (redact(owner, NAMES).owner, redact(owner, NAMES).previous_owner) == ("forgotten-1", "bob")
    changed = events.MemberChanged(group_id="g", occurred_at=1, recorded_at=1, member="alice", name_card="alice B.")
    assert (redact(changed, NAMES).member, redact(changed, NAMES).name_card) == ("forgotten-1", "forgotten-1 B.")


def test_texts_and_values_lose_the_id_where_it_is_a_word() -> None:
    event = events.GroupProfileChanged(
        group_id="g",
        occurred_at=1,
        recorded_at=1,
        name="alice's group of malice",
        introduction="ask alice, or alice_b",
        face_url="https://cdn.example/alice.png",
        custom_fields={"seat": '{"uid":"alice","n":1}', "alice": "x"},
    )
    after = redact(event, NAMES)
    assert after.name == "forgotten-1's group of malice"
    assert after.introduction == "ask forgotten-1, or alice_b"
    assert after.face_url == "https://cdn.example/forgotten-1.png"
    assert after.custom_fields == {"seat": '{"uid":"forgotten-1","n":1}', "forgotten-1": "x"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"Member_Account": "alice" , "n":1e400}', '{"Member_Account": "forgotten-1" , "n":1e400}'),
        ('{"a":"\\u0061lice","b":"\\ud800","a":"al\\/ice"}', '{"a":"forgotten-1","b":"\\ud800","a":"al\\/ice"}'),
        ('{"GroupId":"@TGS#alice","Name":"@TGS#alice"}', '{"GroupId":"@TGS#alice","Name":"@TGS#alice"}'),
        ('{"v":"{\\"uid\\":\\"alice\\"}"}', '{"v":"{\\"uid\\":\\"forgotten-1\\"}"}'),
        ('{"v":"{\\"\\\\u0061lice\\":1}"}', '{"v":"{\\"forgotten-1\\":1}"}'),
        ('{"alice":1}', '{"alice":1}'),
        ('{"v":"bob"}', '{"v":"bob"}'),
        ('{"v":"\u5f20 alice\\n"}', '{"v":"\u5f20 forgotten-1\\n"}'),
        ('{"v":"\\u0061lice\n\\ud800"}', '{"v":"forgotten-1\\n\ufffd"}'),
        ('{"v":"[\\"\\\\u0061lice\\"]"}', '{"v":"[\\"forgotten-1\\"]"}'),
        ('{"v":"not JSON: \\"\\\\u0061lice\\""}', '{"v":"not JSON: \\"\\\\u0061lice\\""}'),
        (
            '{"Unknown_Account":"alice b","Unknown":"alice b"}',
            '{"Unknown_Account":"alice b","Unknown":"forgotten-1 b"}',
        ),
        (
            '{"a":[{"GroupId":"alice"},"alice"],"b":"alice"}',
            '{"a":[{"GroupId":"alice"},"forgotten-1"],"b":"forgotten-1"}',
        ),
    ],
)
def test_of_the_body_only_the_strings_concerned_are_rewritten(before: str, after: str) -> None:
    assert redacted_body(before, "bob") == after


def test_the_id_of_another_account_stays_even_if_it_contains_the_word() -> None:
    body = '{"NewMemberList":[{"Member_Account":"alice.smith"},{"Member_Account":"alice"}],"x":"alice.jones"}'
    assert redacted_body(body, "alice.smith", "alice") == body.replace('"alice"', '"forgotten-1"').replace(
        "alice.jones", "forgotten-1.jones"
    )


def test_an_event_that_names_nobody_forgotten_is_the_event_itself() -> None:
    event = joined('{"a":"\\u0062ob"}', "bob")
    assert redact(event, NAMES) is event


def test_many_are_forgotten_at_once_the_longer_id_first() -> None:
    names = {"a b": "f1", "a": "f2"}
    event = joined('{"x":"a b a c"}', "a", "a b")
    assert redact(event, names).callback == '{"x":"f1 f2 c"}'
    assert redact(event, names).members == ("f2", "f1")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"alice joined \xff", b"forgotten-1 joined \xff"),
        (b'{"a":"\\u0061lice"', b'{"a":"forgotten-1"'),
        (b'[1,"alice', b'[1,"forgotten-1'),
        (b"malice", b"malice"),
        (b'["\\u0061lice', b'["forgotten-1'),
        (b'["alice ', b'["forgotten-1 '),
        (b'"\\u0061lice {', b'"forgotten-1 {'),
        (b'{"\\x \\"alice"}', b'{"\\x \\"forgotten-1"}'),
        (b'"alice\\', b'"forgotten-1\\'),
        (b']}, ["\\u0061lice"', b']}, ["forgotten-1"'),
        (b"", b""),
    ],
)
def test_rubbish_loses_the_id_too_and_nothing_else(before: bytes, after: bytes) -> None:
    assert redact_unreadable(before, NAMES) == after


texts = st.lists(st.sampled_from(["alice", "bob", "\u4e2d", "-", "_", " ", '"', "\\", "{", "}", "\n", "\ud800"])).map(
    "".join
)
documents = st.recursive(
    texts | st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [string for item in value for string in _strings(item)]
    return [string for item in value.values() for string in _strings(item)] if isinstance(value, dict) else []


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(texts, documents, max_size=4), st.booleans(), st.booleans())
def test_no_string_of_any_body_has_the_word_afterwards_and_the_rest_is_as_it_was(
    document: dict[str, Any], ascii_only: bool, as_rubbish: bool
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode(errors="replace").decode()
    after = redact_unreadable(body.encode(), NAMES).decode() if as_rubbish else redacted_body(body)
    before_strings, after_strings = _strings(json.loads(body)), _strings(json.loads(after))
    assert not [text for text in after_strings if re.search(r"(?<![\w-])alice(?![\w-])", text)]
    for before, now in zip(before_strings, after_strings, strict=True):
        if "alice" not in before:
            assert now == before
    if "alice" not in body and "\\" not in body:
        assert after == body


@settings(max_examples=300, deadline=None)
@given(any_event, st.sampled_from(["ann", "bob", "cyd", "x", "administrator"]))
def test_an_event_is_changed_if_and_only_if_the_account_is_among_what_it_mentions(
    event: events.Event, account: str
) -> None:
    changed = redact(event, {account: "forgotten-1"})
    assert (changed is not event) == (account in mentioned(event))
    assert account not in mentioned(changed)
    places = ("group_id", "occurred_at", "recorded_at", "topic_id", "group_type")
    assert [getattr(changed, place) for place in places] == [getattr(event, place) for place in places]


def test_ids_are_found_wherever_a_text_has_them_as_a_word() -> None:
    event = events.GroupProfileChanged(
        group_id="g", occurred_at=1, recorded_at=1, name="alice's group", introduction="ann@example.com, a.b~ and 7"
    )
    assert {"alice", "ann@example.com", "a.b~", "7"} <= mentioned(event)
    assert {"alice", "b"} <= mentioned_in_unreadable(b"(alice)\xff b")
    assert "alice" in mentioned(joined(json.dumps({"v": '["\\u0061lice"]'}), "bob"))


def test_json_within_json_is_searched_four_levels_deep_and_deeper_only_for_what_is_not_escaped() -> None:
    text, names = "\u5f20 alice", {"\u5f20": "f1", "alice": "f2"}
    for _ in range(5):
        text = json.dumps([text])
    event = events.GroupProfileChanged(group_id="g", occurred_at=1, recorded_at=1, introduction=text)
    assert redact(event, names).introduction == text.replace("alice", "f2")
    assert "\u5f20" not in mentioned(event)
    assert "\u5f20" not in mentioned_in_unreadable(text.encode())
    assert redact_unreadable(text.encode(), names).decode() == text.replace("alice", "f2")


def test_what_rubbish_may_mention_is_every_string_and_every_word() -> None:
    assert {"alice", "a b", "x"} <= mentioned_in_unreadable(b'{"a b": "\\u0061lice", x')


def accounts_in(value: Any) -> set[str]:
    """The accounts in a documented callback: every string in a field whose name ends in `_Account`."""
    if isinstance(value, list):
        return {account for item in value for account in accounts_in(item)}
    if not isinstance(value, dict):
        return set()
    named = {item for key, item in value.items() if key.endswith("_Account") and isinstance(item, str) and item}
    return named | {account for item in value.values() for account in accounts_in(item)}


@pytest.mark.parametrize("payload", RECORDED, ids=lambda payload: payload.name)
def test_no_account_of_a_documented_callback_is_left_when_it_is_forgotten(payload: Payload) -> None:
    command = command_of({name.lower(): value for name, value in payload.query.items()}, payload.body)
    event = translate(command, payload.body, platform=None, received_at=1_700_000_000_000).event
    document = json.loads(payload.body)
    for account in accounts_in(document):
        redacted = redact(event, {account: "forgotten-1"})
        after = json.loads(redacted.callback)
        assert account not in accounts_in(after), payload.name
        assert len(accounts_in(after)) == len(accounts_in(document))
        assert account in mentioned(event)
        assert account not in mentioned(redacted)
        fixed = ("CallbackCommand", "GroupId", "Type", "JoinType", "ExitType", "OptionType", "EventTime", "TopicId")
        assert {field: after.get(field) for field in fixed} == {field: document.get(field) for field in fixed}


@pytest.mark.parametrize(
    "field",
    [
        *("CallbackCommand", "EventTime", "ExitType", "GroupId", "InviteOption", "JoinType", "OptPlatform"),
        *("OptionType", "Role", "TopicId", "TopicIdList", "Type", "groupID"),
    ],
)
def test_what_is_neither_an_account_nor_a_text_stays_and_is_not_looked_up(field: str) -> None:
    event = joined(f'{{"{field}":"alice","v":{{"{field}":["alice"]}}}}', "bob")
    assert redact(event, NAMES) is event
    assert "alice" not in mentioned(event)


def test_types_and_commands_stay_even_if_an_account_is_called_so() -> None:
    body = (
        '{"CallbackCommand":"Public","Type":"Public","JoinType":"Apply","GroupId":"Public","TopicIdList":["Public"],'
        '"Operator_Account":"Public","Name":"Public","Unknown":["x",{"y":"Apply"}]}'
    )
    event = events.MembersJoined(group_id="Public", occurred_at=1, recorded_at=1, members=("Apply",), callback=body)
    redacted = redact(event, {"Public": "f1", "Apply": "f2"})
    assert redacted.callback == (
        '{"CallbackCommand":"Public","Type":"Public","JoinType":"Apply","GroupId":"Public","TopicIdList":["Public"],'
        '"Operator_Account":"f1","Name":"f1","Unknown":["x",{"y":"f2"}]}'
    )
    assert (redacted.group_id, redacted.members) == ("Public", ("f2",))


@pytest.mark.parametrize("account", ["ann@example.com", "user.name", "@TGS#x", "a b", "7", "张三", "a:b", "x+y"])
def test_an_id_of_other_characters_is_found_and_replaced_in_texts(account: str) -> None:
    for text in (account, f"with {account}, and others", f"({account})", f"by {account}"):
        event = events.GroupProfileChanged(group_id="g", occurred_at=1, recorded_at=1, introduction=text)
        assert account in mentioned(event) or " " in account
        assert redact(event, {account: "f1"}).introduction == text.replace(account, "f1")


@pytest.mark.parametrize("account", ["alice", "张三", "ann@example.com", 'a"b'])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_an_id_in_json_within_a_text_is_found_however_it_is_escaped_so_that_it_is_redacted(
    account: str, depth: int
) -> None:
    text: Any = account
    for _ in range(depth):
        text = json.dumps({"uid": text})
    event = events.GroupProfileChanged(
        group_id="g", occurred_at=1, recorded_at=1, custom_fields={"seat": text}, callback=json.dumps({"v": text})
    )
    assert account in mentioned(event)
    redacted = redact(event, {account: "f1"})
    value, body = redacted.custom_fields["seat"], json.loads(redacted.callback)["v"]
    for _ in range(depth):
        value, body = json.loads(value)["uid"], json.loads(body)["uid"]
    assert (value, body) == ("f1", "f1")
    assert account in mentioned_in_unreadable(text.encode())


@pytest.mark.parametrize(
    "text", ['"\\"' * 100_000, '["\\"' * 70_000, "{" * 150_000, '{"' * 100_000, '\\"' * 100_000, '["[\\"' * 50_000]
)
def test_text_made_to_be_slow_is_redacted(text: str) -> None:
    assert redact_unreadable(f"{text} alice".encode(), NAMES).endswith(b"forgotten-1")
    assert mentioned_in_unreadable(text.encode())
    event = events.GroupProfileChanged(group_id="g", occurred_at=1, recorded_at=1, introduction=text, callback=text)
    assert redact(event, NAMES).introduction == text
