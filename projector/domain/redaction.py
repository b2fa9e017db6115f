"""Redaction: what is left of an event when people are forgotten. Others, and everything else, stay to the letter.

An account's id is replaced by a pseudonym where it is a whole value, and in other texts where it is a whole word: where
no letter, digit, `_` or `-` stands beside it. Ids of groups, topics and other accounts stay whatever is in them, and so
do the keys of the body.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from projector.domain.events import Event

_ACCOUNTS: Final = ("operator", "owner", "previous_owner", "member")
_TEXTS: Final = ("name", "introduction", "notification", "face_url", "name_card")
_DICTIONARIES: Final = ("custom_fields", "attributes")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"(?P<key>\s*:)?', re.DOTALL)
_PLAIN_VALUE: Final = re.compile(r'"([^"]*+)"(?!\s*:)')
_WORD: Final = re.compile(r"[\w-]+")
_HALF: Final = re.compile("[\ud800-\udfff]")

_E = TypeVar("_E", bound="Event")


def redact(event: _E, names: Mapping[str, str]) -> _E:
    """Return the event with accounts replaced by their pseudonyms; the event itself if it mentions none of them."""
    if not _may_mention(event, names):
        return event
    pattern = _pattern(names)
    kept = {*_accounts(event), event.group_id, event.topic_id} - names.keys()

    def text(value: str) -> str:
        return value if value in kept else _replaced(value, names, pattern)

    changes: dict[str, Any] = {}
    for field in _ACCOUNTS:
        if value := getattr(event, field, None):
            changes[field] = names.get(value, value)
    for field in _TEXTS:
        if value := getattr(event, field, None):
            changes[field] = text(value)
    for field in _DICTIONARIES:
        if value := getattr(event, field, None):
            changes[field] = {text(key): text(one) for key, one in value.items()}
    if members := getattr(event, "members", None):
        changes["members"] = tuple(names.get(member, member) for member in members)
    changes["callback"] = _body(event.callback, names, pattern, kept)
    changed = {field: value for field, value in changes.items() if value != getattr(event, field)}
    return replace(event, **changed) if changed else event


def redact_unreadable(body: bytes, names: Mapping[str, str]) -> bytes:
    """Return bytes that could not be read as a callback with accounts replaced, in strings and outside of them."""
    pattern = _pattern(names)
    text = _body(body.decode(errors="surrogateescape"), names, pattern, (), keys=True)
    return _replaced(text, names, pattern).encode(errors="surrogateescape")


def mentioned(event: Event) -> set[str]:
    """Return every text in an event that may be an account's id, or a word of which one may stand alone."""
    found = {*_accounts(event), *_words(event.callback)}
    for text in _texts(event):
        found |= {text, *_WORD.findall(text)}
    return found


def mentioned_in_unreadable(body: bytes) -> set[str]:
    """Return the same of bytes that could not be read as a callback."""
    text = body.decode(errors="surrogateescape")
    return {*_words(text, keys=True), *_WORD.findall(text)}


def _may_mention(event: Event, names: Collection[str]) -> bool:
    if "\\" in event.callback or not _accounts(event).isdisjoint(names):
        return True
    texts = [event.callback, *_texts(event)]
    return any(name in text for text in texts for name in names)


def _accounts(event: Event) -> set[str]:
    named = {getattr(event, field, None) for field in _ACCOUNTS}
    return {account for account in named if account} | {*getattr(event, "members", ())}


def _texts(event: Event) -> set[str]:
    texts = {text for field in _TEXTS if (text := getattr(event, field, None))}
    for field in _DICTIONARIES:
        for pair in getattr(event, field, {}).items():
            texts |= {*pair}
    return texts


def _words(text: str, *, keys: bool = False) -> set[str]:
    if "\\" not in text and not keys:
        values = _PLAIN_VALUE.findall(text)
    else:
        strings = (string for string in _STRING.finditer(text) if keys or not string["key"])
        values = [_value(string[0].removesuffix(string["key"] or "")) for string in strings]
    return {*values, *_WORD.findall(" ".join(values))}


def _pattern(names: Mapping[str, str]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")


def _replaced(value: str, names: Mapping[str, str], pattern: re.Pattern[str]) -> str:
    if value in names:
        return names[value]
    if value[:1] in ("{", "["):
        value = _body(value, names, pattern, (), keys=True)
    return pattern.sub(lambda found: names[found[0]], value)


def _body(
    text: str, names: Mapping[str, str], pattern: re.Pattern[str], kept: Collection[str | None], *, keys: bool = False
) -> str:
    """Return a JSON text in which the strings that mention an account are written anew, and nothing else is."""

    def rewritten(string: re.Match[str]) -> str:
        if string["key"] and not keys:
            return string[0]
        after = string["key"] or ""
        value = _value(string[0].removesuffix(after))
        if value in kept or (now := _replaced(value, names, pattern)) == value:
            return string[0]
        return json.dumps(now, ensure_ascii=False) + after

    return _STRING.sub(rewritten, text)


def _value(string: str) -> str:
    """Return what a string of a JSON text says, as events have it; as it stands, if it is none."""
    if "\\" not in string:
        return string[1:-1]
    try:
        said = json.loads(string, strict=False)
    except ValueError:
        return string[1:-1]
    return _HALF.sub("\ufffd", said)
