"""The parameters of the feeds."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Scope

from projector.feeds.cursor import FeedCursor, parse_cursor
from projector.feeds.selection import Selection
from projector.http.cursors import Cursor
from projector.http.parameters import DEFAULT_LIMIT, PARAMETERS, integer
from projector.http.problems import Problem

LATEST: Final = "latest"
MAX_FILTERS: Final = 100
MAX_WAIT_S: Final = 30

_NAMES: Final = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_FILTERS}
FEED_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "after": {
        "schema": {
            "anyOf": [
                PARAMETERS["position"]["schema"],
                {"type": "string", "pattern": "^(latest|[0-9]{1,18}-[0-9a-f]{8}-[0-9]{1,18})$"},
            ]
        },
        "description": "Only messages after this cursor, or position, or after the newest message (`latest`).",
    },
    "limit": PARAMETERS["limit"],
    "group_id": {"schema": _NAMES, "description": "Only messages about these groups."},
    "user_id": {
        "schema": _NAMES,
        "description": "Only messages about these users, and those about everybody: dismissals, resets and notices.",
    },
    "type": {
        "schema": _NAMES,
        "description": "Only messages of these types, and those about everybody: dismissals, resets and notices.",
    },
    "wait": {
        "schema": {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0},
        "description": "If there is no message, wait for one for so many seconds. Not for `text/event-stream`.",
    },
    "wait_for": PARAMETERS["wait_for"],
}
"""OpenAPI parameter objects of the query parameters, by name."""

_REPEATABLE: Final = ("group_id", "user_id", "type")


class FeedParameters(NamedTuple):
    """The checked parameters of a request to a feed. `after` is None for the newest message."""

    after: FeedCursor | int | None = 0
    limit: int = DEFAULT_LIMIT
    selection: Selection = Selection()
    wait: int = 0
    wait_for: int = 0


def read_feed_parameters(scope: Scope, cursor: Cursor | None) -> FeedParameters:
    """Return the parameters of a request; those of `cursor` are accepted too. Raises Problem."""
    values = _query_values(scope["query_string"], [*FEED_PARAMETERS, *(("cursor",) if cursor else ())])
    single = {name: texts[0] for name, texts in values.items() if name not in _REPEATABLE}
    after = _after(single.get("after", "0"))
    if cursor and "cursor" in single:
        position = cursor.decode(single["cursor"]) or 0
        after = max(after, position) if isinstance(after, int) else position
    groups, users, types = (frozenset(values.get(name, ())) for name in _REPEATABLE)
    numbers = {
        name: integer(name, FEED_PARAMETERS[name]["schema"], text)
        for name, text in single.items()
        if name in ("limit", "wait", "wait_for")
    }
    return FeedParameters(after, selection=Selection(groups, users, types), **numbers)


def last_event_id(scope: Scope) -> FeedCursor | int | None:
    """Return the cursor that a client of server-sent events has read last, None if it sends none. Raises Problem."""
    text = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"last-event-id"), "")
    try:
        return parse_cursor(text) if text else None
    except ValueError:
        raise Problem(400, "The header 'Last-Event-ID' must be a cursor of this feed.") from None


def _after(text: str) -> FeedCursor | int | None:
    try:
        return None if text == LATEST else parse_cursor(text)
    except ValueError:
        raise Problem(400, "The parameter 'after' must be a cursor, a position or 'latest'.") from None


def _query_values(query: bytes, accepted: list[str]) -> dict[str, list[str]]:
    try:
        text = query.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
    except ValueError:
        raise Problem(400, "The query string is not of the form name=value&name=value in UTF-8.") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in accepted:
            names = ", ".join(sorted(accepted))
            raise Problem(400, f"Unknown parameter {name[:100]!r}; this route accepts {names}.")
        values.setdefault(name, []).append(value)
        if len(values[name]) > (MAX_FILTERS if name in _REPEATABLE else 1):
            raise Problem(400, f"The parameter {name!r} is given too often.")
        if not value and name in _REPEATABLE:
            raise Problem(400, f"The parameter {name!r} must not be empty.")
    return values
