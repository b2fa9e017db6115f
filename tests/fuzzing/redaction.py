"""A target for fuzzing: redaction of callbacks and of bodies that cannot be read, against a slow description of it."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any, Final

from projector.callbacks import Unreadable, carries_group_state, command_of, translate
from projector.domain.events import GroupProfileChanged
from projector.domain.redaction import mentioned, mentioned_in_unreadable, redact, redact_unreadable
from tests.callbacks.payloads import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from projector.domain.events import Event

FIXED: Final = frozenset(
    {
        *("CallbackCommand", "EventTime", "ExitType", "GroupId", "InviteOption", "JoinType", "OptPlatform"),
        *("OptionType", "Role", "TopicId", "TopicIdList", "Type", "groupID"),
    }
)
EVENT_ACCOUNTS: Final = ("operator", "owner", "previous_owner", "member")
PSEUDONYM: Final = "forgotten-1"
LARGE: Final = 65_536


def redaction(data: bytes) -> None:
    """The first byte selects a command, the rest is a body: no account in it is left, and nothing else is changed."""
    if not data:
        return
    named, body = COMMANDS[data[0] % len(COMMANDS)], data[1:]
    try:
        command = command_of({"callbackcommand": named}, body)
        event = (
            translate(command, body, platform=None, received_at=1_700_000_000_000).event
            if carries_group_state(command)
            else None
        )
    except Unreadable:
        event = None
    for account in _accounts_to_forget(event, body):
        if event is not None:
            _check_event(event, account)
        _check_unreadable(body, account)


def _accounts_to_forget(event: Event | None, body: bytes) -> list[str]:
    """Return an account that the callback names, if any, and a word of its body."""
    words = re.findall(r"[\w-]+", body.decode(errors="replace"))
    chosen = words[len(body) % len(words) : len(body) % len(words) + 1] if words else ["alice"]
    accounts = dict.fromkeys([*(sorted(_event_accounts(event))[:1] if event else ()), *chosen])
    return [account for account in accounts if account != PSEUDONYM]


def _event_accounts(event: Event) -> set[str]:
    named = {getattr(event, field, None) for field in EVENT_ACCOUNTS} | {*getattr(event, "members", ())}
    return {account for account in named if account}


def _check_event(event: Event, account: str) -> None:
    redacted = redact(event, {account: PSEUDONYM})
    assert account not in _event_accounts(redacted), "an account is left in the event"
    assert redact(redacted, {account: PSEUDONYM}) is redacted, "something is left to redact"
    if _is_word(account) and redacted is not event:
        assert account in mentioned(event), "the store would not notice what is to be redacted"
    for field in ("group_id", "topic_id", "group_type", "occurred_at", "recorded_at", "platform"):
        assert getattr(redacted, field) == getattr(event, field), field
    other_ids = _event_accounts(event) | {event.group_id, event.topic_id} - {account}
    before, after = (_values(json.loads(each.callback, strict=False)) for each in (event, redacted))
    for (path, old), (new_path, new) in zip(before, after, strict=True):
        assert path == new_path, "the document has another shape"
        _check_value(path, old, new, account, other_ids)


def _check_value(path: tuple[str, ...], old: Any, new: Any, account: str, other_ids: set[Any]) -> None:
    """Compare a value of the body before and after."""
    field = path[-1] if path else ""
    if not isinstance(old, str) or field in FIXED:
        assert repr(new) == repr(old)
    elif field.endswith("_Account"):
        assert new == (PSEUDONYM if old == account else old)
    elif old in other_ids - {account}:
        assert new == old
    elif _is_word(account):
        assert not _has_word(new, account), "a word is left"
    if isinstance(old, str) and account not in old and "\\" not in old:
        assert new == old, "a text without the account is changed"


def _check_unreadable(body: bytes, account: str) -> None:
    redacted = redact_unreadable(body, {account: PSEUDONYM})
    text, before = (each.decode(errors="surrogateescape") for each in (redacted, body))
    if not _is_word(account):
        return
    assert not _has_word(text, account), "a word is left"
    if _has_word(before, account):
        assert account in mentioned_in_unreadable(body)
    try:
        document = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return
    assert not [value for _, value in _values(document) if isinstance(value, str) and _has_word(value, account)]


def _is_word(account: str) -> bool:
    return re.fullmatch(r"[\w-]+", account) is not None


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def _values(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value in a document that contains no other, with the names of the fields on the way to it.

    Lone surrogates are replaced, as they are in accounts.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _values(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _values(item, path)
    else:
        yield path, re.sub("[\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


def ns_per_byte(body: bytes) -> int:
    """Return the processor time for redacting the body, repeated until it is large, and for looking for accounts."""
    large = (body * (LARGE // max(len(body), 1) + 1))[:LARGE]
    text = large.decode(errors="replace")
    event = GroupProfileChanged(group_id="g", occurred_at=1, recorded_at=1, introduction=text, callback=text)
    begun = time.thread_time_ns()
    redact_unreadable(large, {"alice": PSEUDONYM})
    mentioned_in_unreadable(large)
    redact(event, {"alice": PSEUDONYM})
    mentioned(event)
    return (time.thread_time_ns() - begun) // (6 * LARGE)
