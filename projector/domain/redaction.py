"""Redaction: replaces the ids of forgotten users in an event by pseudonyms, and leaves everything else unchanged.

Accounts are replaced where the events, or the vendor's fields, hold accounts. In texts, an id is replaced where it is
the whole value or a whole word, with no letter, digit, `_` or `-` next to it. Ids of groups, topics and other accounts,
types and commands are never changed, nor are the keys of a body. Escaped ids are found in JSON within texts, up to four
levels deep. The time is linear in the length of the texts.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar, get_args, get_type_hints

from msgspec.structs import replace

from projector.domain.events import TYPES, Account, Event, MembersObserved, ObservedMember, Text

_FIXED_FIELDS: Final = frozenset(
    {
        *("CallbackCommand", "EventTime", "ExitType", "GroupId", "InviteOption", "JoinType", "OptPlatform"),
        *("OptionType", "Role", "TopicId", "TopicIdList", "Type", "groupID"),
        *("ActionStatus", "ApplyJoinOption", "InviteJoinOption", "MsgFlag", "MuteAllMember", "ShutUpAllMember"),
    }
)
"""Fields of the vendor's group callbacks (1047/34368 to 34378, 60393 to 60396), and of the answers of its REST API
(1047/34948, 34961), that hold neither accounts nor texts."""

_ACCOUNT_FIELD_SUFFIX: Final = "_Account"
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}\[\]:,]', re.DOTALL)
"""A string, which the end of the text ends too, or a structural character of JSON."""

_WORD: Final = re.compile(r"[\w-]+")
_BETWEEN_SPACES: Final = re.compile(r"\S+")
_PUNCTUATION: Final = ".,;:!?\"'()[]{}<>，。；：！？（）【】《》“”‘’"  # noqa: RUF001 - Chinese texts have them
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_NESTING: Final = 4

_E = TypeVar("_E", bound="Event")


def _fields_of(annotation: Any) -> tuple[str, ...]:
    """Return the fields of all events whose type contains this one."""
    hints = (get_type_hints(event, include_extras=True) for event in TYPES.values())
    return tuple(
        dict.fromkeys(name for fields in hints for name, hint in fields.items() if _contains(hint, annotation))
    )


def _contains(hint: Any, annotation: Any) -> bool:
    return hint == annotation or any(_contains(argument, annotation) for argument in get_args(hint))


ACCOUNT_FIELDS: Final = _fields_of(Account)
TEXT_FIELDS: Final = _fields_of(Text)


def redact(event: _E, pseudonyms: Mapping[str, str]) -> _E:
    """Return the event with accounts replaced by their pseudonyms, or the event itself if it mentions none of them."""
    if not pseudonyms:
        return event
    replacing = _Replacing(
        pseudonyms, frozenset({*_accounts(event), event.group_id, event.topic_id} - pseudonyms.keys())
    )
    changes: dict[str, Any] = {"callback": replacing.json(event.callback)}
    for field in ACCOUNT_FIELDS:
        match getattr(event, field, None):
            case str() as account:
                changes[field] = pseudonyms.get(account, account)
            case tuple() as accounts:
                changes[field] = tuple(pseudonyms.get(account, account) for account in accounts)
            case dict() as observed:
                changes[field] = {
                    pseudonyms.get(account, account): replacing.member(member) for account, member in observed.items()
                }
    for field in TEXT_FIELDS:
        match getattr(event, field, None):
            case str() as text:
                changes[field] = replacing.text(text)
            case tuple() as texts:
                changes[field] = tuple(map(replacing.text, texts))
            case dict() as entries:
                changes[field] = {replacing.text(key): replacing.text(value) for key, value in entries.items()}
    changed = {field: value for field, value in changes.items() if value != getattr(event, field)}
    return replace(event, **changed) if changed else event


def redact_unreadable(body: bytes, pseudonyms: Mapping[str, str]) -> bytes:
    """Replace accounts in a body that cannot be read as a callback, inside and outside of JSON strings."""
    replacing = _Replacing(pseudonyms, frozenset())
    text = replacing.strings(body.decode(errors="surrogateescape"), _MAX_NESTING)
    return replacing.words(text).encode(errors="surrogateescape")


def mentioned(event: Event) -> set[str]:
    """Return every text in an event that `redact` would replace if it were a forgotten account's id."""
    texts = [string.value for string in _json_strings(event.callback) if string.may_be_redacted]
    for field in TEXT_FIELDS:
        match getattr(event, field, None):
            case str() as text:
                texts.append(text)
            case tuple() as items:
                texts += items
            case dict() as entries:
                texts += [text for pair in entries.items() for text in pair]
    if isinstance(event, MembersObserved):
        texts += [member.name_card for member in event.members.values() if member.name_card]
    return _accounts(event) | _candidates(_with_nested(texts, _MAX_NESTING))


def mentioned_in_unreadable(body: bytes) -> set[str]:
    """Return the same for a body that cannot be read as a callback."""
    text = body.decode(errors="surrogateescape")
    strings = [string.value for string in _json_strings(text)]
    return _candidates([text, *_with_nested(strings, _MAX_NESTING - 1)])


class _Replacing(NamedTuple):
    """The accounts to replace, and the ids that stay even if they contain one as a word."""

    pseudonyms: Mapping[str, str]
    other_ids: frozenset[str | None]

    def text(self, value: str, nesting: int = _MAX_NESTING) -> str:
        """Return a text with accounts replaced; JSON in it is searched for escaped ids."""
        if value in self.other_ids:
            return value
        if value in self.pseudonyms:
            return self.pseudonyms[value]
        return self.words(self.strings(value, nesting) if value[:1] in ("{", "[") and nesting else value)

    def member(self, member: ObservedMember) -> ObservedMember:
        return replace(member, name_card=self.text(member.name_card)) if member.name_card else member

    def words(self, text: str) -> str:
        if not any(account in text for account in self.pseudonyms):
            return text
        longest_first = sorted(self.pseudonyms, key=len, reverse=True)
        accounts = rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"
        return re.sub(accounts, lambda match: self.pseudonyms[match[0]], text)

    def strings(self, text: str, nesting: int) -> str:
        """Rewrite the strings of a JSON text, keys too, that mention an account."""
        return _rewritten(text, [(string, self.text(string.value, nesting - 1)) for string in _json_strings(text)])

    def json(self, body: str) -> str:
        """Rewrite the values of a callback's body, according to their fields."""
        strings = [string for string in _json_strings(body) if string.may_be_redacted]
        return _rewritten(
            body,
            [
                (
                    string,
                    self.pseudonyms.get(string.value, string.value) if string.is_account else self.text(string.value),
                )
                for string in strings
            ],
        )


class _String(NamedTuple):
    """A string in a JSON text: its place, its value, and the field that holds it; None for a key."""

    start: int
    end: int
    value: str
    field: str | None

    @property
    def is_account(self) -> bool:
        return self.field is not None and self.field.endswith(_ACCOUNT_FIELD_SUFFIX)

    @property
    def may_be_redacted(self) -> bool:
        return self.field is not None and self.field not in _FIXED_FIELDS


def _json_strings(text: str) -> Iterator[_String]:
    """Yield the strings of a text that is JSON, or is read as if it were. A list's strings have the list's field."""
    fields: list[str] = [""]  # of the value that comes next, in each open object or list
    in_object: list[bool] = [False]
    is_key = False
    for token in _TOKEN.finditer(text):
        match token[0][0]:
            case "{" | "[" as opening:
                fields.append(fields[-1])
                in_object.append(opening == "{")
                is_key = opening == "{"
            case "}" | "]":
                if len(fields) > 1:
                    fields.pop()
                    in_object.pop()
            case ",":
                is_key = in_object[-1]
            case ":":
                is_key = False
            case _ if (value := _value(token[0])) is not None:
                yield _String(token.start(), token.end(), value, None if is_key else fields[-1])
                if is_key:
                    fields[-1] = value


def _rewritten(text: str, strings: list[tuple[_String, str]]) -> str:
    """Return the text with other values in some of its strings; everything else stays to the letter."""
    pieces, end = [], 0
    for string, value in strings:
        if value != string.value:
            closing = '"' if text[string.end - 1] == '"' else ""
            pieces += [text[end : string.start], json.dumps(value, ensure_ascii=False)[:-1] + closing]
            end = string.end
    return "".join([*pieces, text[end:]])


def _with_nested(texts: list[str], nesting: int) -> list[str]:
    """Return the texts, and the strings in those that are JSON."""
    nested = [string.value for text in texts if text[:1] in ("{", "[") and nesting for string in _json_strings(text)]
    return [*texts, *_with_nested(nested, nesting - 1)] if nested else texts


def _candidates(texts: Collection[str]) -> set[str]:
    """Return the texts, and their words with and without the punctuation in them, as accounts may have it."""
    joined = "\n".join(texts)
    between_spaces = {word.strip(_PUNCTUATION) for word in _BETWEEN_SPACES.findall(joined)}
    return {*texts, *_WORD.findall(joined), *between_spaces}


def _accounts(event: Event) -> set[str]:
    accounts: set[str] = set()
    for field in ACCOUNT_FIELDS:
        match getattr(event, field, None):
            case str() as account if account:
                accounts.add(account)
            case tuple() | dict() as members:
                accounts.update(members)
    return accounts


def _value(string: str) -> str | None:
    """Decode a JSON string, with lone surrogates replaced as in events; None if it is malformed."""
    if "\\" not in string:
        return string[1:].removesuffix('"')
    for ending in ("", '"'):
        with suppress(ValueError):
            return _SURROGATE.sub("\ufffd", json.loads(string + ending, strict=False))
    return None
