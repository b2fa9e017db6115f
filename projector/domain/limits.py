"""Limits on the values that folds keep: the vendor's documented limits, several times over.

A larger value counts as null, and stays in the history. A map keeps the keys with the newest writes. Both depend on
the set of events only, and not on the order of their arrival; a limit on all values together would not.

The documented limits are those of groups (1047/33529, 1047/34381) and attributes (1047/48173), and of the client SDK's
V2TIMGroupInfo where it allows more. They are in bytes of UTF-8, and so are these.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from projector.domain.events import TYPES, Event

MAX_ID_BYTES: Final = 1024
"""Documented ids have at most 96 bytes; ids longer than this would not fit into a database index."""

_TEXT_BYTES: Final = 2_000
"""Documented: 50 for name cards, 100 for names, 400 for introductions and notifications, 500 for URLs of faces."""

_WORD_BYTES: Final = 40
"""The longest type, AVChatRoom, has 10."""

MAX_BYTES: Final = {
    "group_type": _WORD_BYTES,
    "operator": MAX_ID_BYTES,
    "name": _TEXT_BYTES,
    "introduction": _TEXT_BYTES,
    "notification": _TEXT_BYTES,
    "face_url": _TEXT_BYTES,
    "owner": MAX_ID_BYTES,
    "role": _WORD_BYTES,
    "name_card": _TEXT_BYTES,
}
"""The sizes of the fields of events."""


class MapLimit(NamedTuple):
    """The number of keys that a map keeps, deleted ones included, and the sizes of a key and of a value in bytes."""

    keys: int
    key_bytes: int
    value_bytes: int


CUSTOM_FIELDS: Final = MapLimit(keys=160, key_bytes=64, value_bytes=2_048)
"""Documented: up to 20 keys of 16 bytes with values of 512."""

ATTRIBUTES: Final = MapLimit(keys=128, key_bytes=MAX_ID_BYTES, value_bytes=8_192)
"""Documented: up to 16 keys, 4 KB each, 16 KB together."""

_MAX_CHARACTER_BYTES: Final = 4
_MAPS: Final = {"custom_fields": CUSTOM_FIELDS, "attributes": ATTRIBUTES}
_LIMITED: Final = {
    event_type: tuple(field for field in event_type.__struct_fields__ if field in MAX_BYTES or field in _MAPS)
    for event_type in TYPES.values()
}


def utf8_length(text: str) -> int:
    """Return the size of a text in bytes."""
    return len(text) if text.isascii() else len(text.encode())


def bounded(field: str, text: str) -> str | None:
    """Return the value of a field, None if it is larger than its limit."""
    limit = MAX_BYTES[field]
    return text if len(text) * _MAX_CHARACTER_BYTES <= limit or utf8_length(text) <= limit else None


def bounded_entries(limit: MapLimit, entries: Mapping[str, str]) -> dict[str, str | None]:
    """Return the entries whose keys are within their limit; larger values become None."""
    _, key_bytes, value_bytes = limit
    return {
        key: text if utf8_length(text) <= value_bytes else None
        for key, text in entries.items()
        if utf8_length(key) <= key_bytes
    }


def count_oversized(event: Event) -> int:
    """Return how many values of an event, or their keys, are larger than their limits."""
    return sum(_count_oversized(field, value) for field in _LIMITED[type(event)] if (value := getattr(event, field)))


def _count_oversized(field: str, value: str | Mapping[str, str]) -> int:
    if isinstance(value, str):
        return utf8_length(value) > MAX_BYTES[field]
    _, key_bytes, value_bytes = _MAPS[field]
    return sum(utf8_length(key) > key_bytes or utf8_length(text) > value_bytes for key, text in value.items())
