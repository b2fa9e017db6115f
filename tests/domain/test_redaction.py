"""A redacted event mentions no forgotten user anywhere; everything else is unchanged."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.domain import events
from projector.domain.redaction import mentioned, mentioned_in_unreadable, redact, redact_unreadable
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


def test_what_rubbish_may_mention_is_every_string_and_every_word() -> None:
    assert {"alice", "a b", "x"} <= mentioned_in_unreadable(b'{"a b": "\\u0061lice", x')
