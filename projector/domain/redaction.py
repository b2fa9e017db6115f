"""Redaction: replaces the ids of forgotten users in an event by pseudonyms, and leaves everything else unchanged.

An id is replaced where it is a whole value, and within other texts where it is a whole word, with no letter, digit, `_`
or `-` next to it. The ids of groups, topics and other accounts are never changed, nor are the keys of the body.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from projector.domain.events import Event

_ACCOUNTS: Final = ("operator", "owner", "previous_owner", "member")
_TEXTS: Final = ("name", "introduction", "notification", "face_url", "name_card")
_DICTIONARIES: Final = ("custom_fields", "attributes")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"(?P<key>\s*:)?', re.DOTALL)
_PLAIN_VALUE: Final = re.compile(r'"([^"]*+)"(?!\s*:)')
_WORD: Final = re.compile(r"[\w-]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_E = TypeVar("_E", bound="Event")


def redact(event: _E, pseudonyms: Mapping[str, str]) -> _E:
    """Return the event with accounts replaced by their pseudonyms, or the event itself if it mentions none of them."""
    if not _may_mention(event, pseudonyms):
        return event
    pattern = _pattern(pseudonyms)
    other_ids = {*_accounts(event), event.group_id, event.topic_id} - pseudonyms.keys()

    def text(value: str) -> str:
        return value if value in other_ids else _replaced(value, pseudonyms, pattern)

    changes: dict[str, Any] = {}
    for field in _ACCOUNTS:
        if value := getattr(event, field, None):
            changes[field] = pseudonyms.get(value, value)
    for field in _TEXTS:
        if value := getattr(event, field, None):
            changes[field] = text(value)
    for field in _DICTIONARIES:
        if value := getattr(event, field, None):
            changes[field] = {text(key): text(item) for key, item in value.items()}
    if members := getattr(event, "members", None):
        changes["members"] = tuple(pseudonyms.get(member, member) for member in members)
    changes["callback"] = _body(event.callback, pseudonyms, pattern, other_ids)
    changed = {field: value for field, value in changes.items() if value != getattr(event, field)}
    return replace(event, **changed) if changed else event


def redact_unreadable(body: bytes, pseudonyms: Mapping[str, str]) -> bytes:
    """Replace accounts in a body that cannot be read as a callback, inside and outside of JSON strings."""
    pattern = _pattern(pseudonyms)
    text = _body(body.decode(errors="surrogateescape"), pseudonyms, pattern, (), keys=True)
    return _replaced(text, pseudonyms, pattern).encode(errors="surrogateescape")


def mentioned(event: Event) -> set[str]:
    """Return every value and every word in an event that `redact` would replace if it were a forgotten account's id."""
    candidates = {*_accounts(event), *_words(event.callback)}
    for text in _texts(event):
        candidates |= {text, *_WORD.findall(text)}
    return candidates


def mentioned_in_unreadable(body: bytes) -> set[str]:
    """Return the same for a body that cannot be read as a callback."""
    text = body.decode(errors="surrogateescape")
    return {*_words(text, keys=True), *_WORD.findall(text)}


def _may_mention(event: Event, accounts: Collection[str]) -> bool:
    if "\\" in event.callback or not _accounts(event).isdisjoint(accounts):
        return True
    texts = [event.callback, *_texts(event)]
    return any(account in text for text in texts for account in accounts)


def _accounts(event: Event) -> set[str]:
    accounts = {getattr(event, field, None) for field in _ACCOUNTS}
    return {account for account in accounts if account} | {*getattr(event, "members", ())}


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


def _pattern(accounts: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(accounts, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")


def _replaced(value: str, pseudonyms: Mapping[str, str], pattern: re.Pattern[str]) -> str:
    if value in pseudonyms:
        return pseudonyms[value]
    if value[:1] in ("{", "["):
        value = _body(value, pseudonyms, pattern, (), keys=True)
    return pattern.sub(lambda match: pseudonyms[match[0]], value)


def _body(
    text: str,
    pseudonyms: Mapping[str, str],
    pattern: re.Pattern[str],
    other_ids: Collection[str | None],
    *,
    keys: bool = False,
) -> str:
    """Rewrite those strings of a JSON text that mention an account; keys too if `keys` is set."""

    def rewritten(string: re.Match[str]) -> str:
        if string["key"] and not keys:
            return string[0]
        after = string["key"] or ""
        value = _value(string[0].removesuffix(after))
        if value in other_ids or (redacted := _replaced(value, pseudonyms, pattern)) == value:
            return string[0]
        return json.dumps(redacted, ensure_ascii=False) + after

    return _STRING.sub(rewritten, text)


def _value(string: str) -> str:
    """Decode a JSON string, with lone surrogates replaced as in events; a malformed one only loses its quotes."""
    if "\\" not in string:
        return string[1:-1]
    try:
        value: str = json.loads(string, strict=False)
    except ValueError:
        return string[1:-1]
    return _SURROGATE.sub("\ufffd", value)
