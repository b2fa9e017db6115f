"""The parameters of a request: each is read as its schema in the OpenAPI document describes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.types import Scope

from projector.clock import from_rfc3339
from projector.domain.lives import Moment
from projector.http.cursors import MAX_POSITION
from projector.http.problems import Problem
from projector.read_model.pages import Page

if TYPE_CHECKING:
    from projector.http.routes import Route

_Item = TypeVar("_Item")

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_MAX_MS_DIGITS: Final = 15
_DATE_LENGTH: Final = len("2022-12-09T")

_POSITION: Final = {"type": "integer", "minimum": 0, "maximum": MAX_POSITION}
_TIME: Final = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "integer", "minimum": 0, "maximum": 10**_MAX_MS_DIGITS - 1},
    ]
}
_PATH_ID: Final = {
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "Percent-encoded, including any `/`.",
}

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "group_id": _PATH_ID,
    "user_id": _PATH_ID,
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}},
    "cursor": {"schema": {"type": "string"}, "description": "`next` of the previous page; opaque."},
    "wait_for": {
        "schema": _POSITION,
        "description": "Wait until the read model has reached this position, for at most 2 s.",
    },
    "at": {
        "schema": _TIME,
        "description": "The state at this effective time, from everything recorded so far. RFC 3339, or ms since 1970.",
    },
    "position": {
        "schema": _POSITION,
        "description": "The state after the event at this position was applied. Cannot be combined with `at`.",
    },
    "from": {"schema": _TIME, "description": "Only changes after this effective time."},
    "to": {"schema": _TIME, "description": "Only changes up to and including this effective time."},
    "type": {"schema": {"type": "string"}, "description": "The vendor's group type, e.g. `Public`."},
    "status": {"schema": {"type": "string", "enum": ["active", "dismissed"]}},
    "is_full": {"schema": {"type": "boolean"}},
    "q": {"schema": {"type": "string"}, "description": "A case-sensitive prefix of the group's name or id."},
    "If-None-Match": {
        "in": "header",
        "schema": {"type": "string"},
        "description": "The `ETag` of an earlier response.",
    },
}
"""OpenAPI parameter objects by name. They describe query parameters unless `in` says otherwise."""


class Parameters(msgspec.Struct, frozen=True):
    """The checked parameters of one request to a route. Those that the route does not accept have these defaults.

    `cursor` is the key after which the page begins, None for the first page. Times are in ms since 1970 UTC.
    """

    route: Route
    group_id: str = ""
    user_id: str = ""
    limit: int = DEFAULT_LIMIT
    cursor: Any = None
    wait_for: int = 0
    at: int | None = None
    position: int | None = None
    from_: int | None = None
    to: int | None = None
    type: str | None = None
    status: str | None = None
    is_full: bool | None = None
    q: str | None = None

    @property
    def is_now(self) -> bool:
        """Whether the current state is requested, not an earlier one."""
        return self.at is None and self.position is None

    def following(self, page: Page[_Item], key: Callable[[_Item], str | int | Moment] | None = None) -> str | None:
        """Return the cursor of the page after this one, None if this is the last; `key` is that of an item."""
        assert self.route.cursor is not None
        if page.is_last:
            return None
        if page.examined is not None:
            return self.route.cursor.encode(page.examined)
        assert key is not None
        return self.route.cursor.encode(key(page[-1]))


def read_parameters(scope: Scope, route: Route) -> Parameters:
    """Return the parameters of a request. Raises Problem, which names the wrong parameter."""
    values: dict[str, Any] = {name: _path_id(name, encoded) for name, encoded in scope["path_params"].items()}
    if query := scope["query_string"]:
        values |= _query_values(query, route)
    parameters = Parameters(route, **values)
    if None not in (parameters.at, parameters.position):
        raise Problem(400, "The parameters 'at' and 'position' cannot be combined.")
    if parameters.from_ is not None and parameters.to is not None and parameters.from_ > parameters.to:
        raise Problem(400, "The parameter 'from' must not be later than 'to'.")
    return parameters


def _path_id(name: str, encoded: str) -> str:
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise Problem(400, f"The {name} in the path is not percent-encoded UTF-8.") from None


def _query_values(query: bytes, route: Route) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise Problem(400, "The query string is not of the form name=value&name=value in UTF-8.") from None
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in route.accepted:
            accepted = ", ".join(sorted(route.accepted))
            raise Problem(400, f"Unknown parameter {name[:100]!r}; this route accepts {accepted}.")
        if name in values:
            raise Problem(400, f"The parameter {name!r} is given twice.")
        values[name] = route.cursor.decode(text) if name == "cursor" and route.cursor else _value(name, text)
    return {"from_" if name == "from" else name: value for name, value in values.items()}


def integer(name: str, schema: dict[str, Any], text: str) -> int:
    """Return the value of a parameter with this schema. Raises Problem."""
    lowest, highest = schema["minimum"], schema["maximum"]
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_POSITION)) and lowest <= int(text) <= highest:
        return int(text)
    raise Problem(400, f"The parameter {name!r} must be a whole number from {lowest} to {highest}.")


def _value(name: str, text: str) -> Any:
    match PARAMETERS[name]["schema"]:
        case {"type": "integer"} as schema:
            return integer(name, schema, text)
        case {"enum": choices}:
            return _choice(name, text, choices)
        case {"type": "boolean"}:
            return _choice(name, text, ["true", "false"]) == "true"
        case {"type": "string"}:
            return text or None
        case _:
            return _time(name, text)


def _choice(name: str, text: str, choices: list[str]) -> str:
    if text not in choices:
        raise Problem(400, f"The parameter {name!r} must be {' or '.join(choices)}.")
    return text


def _time(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _MAX_MS_DIGITS:
        return int(text)
    try:
        # A `+` that was not percent-encoded arrives as a space.
        return from_rfc3339(text[:_DATE_LENGTH] + text[_DATE_LENGTH:].replace(" ", "+"))
    except ValueError:
        raise Problem(
            400, f"The parameter {name!r} must be a time: RFC 3339 with its offset, or ms since 1970."
        ) from None
