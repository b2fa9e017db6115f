"""What a question's address says: path segments, and query parameters of which every one must be known."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from projector.clock import from_rfc3339
from projector.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_MAX_POSITION: Final = 2**63 - 1
_MS_DIGITS: Final = 15
_DATE: Final = len("2022-12-09T")


class When(NamedTuple):
    """The moment a question is about: by effective time in ms, by position, or, with neither, now."""

    at: int | None
    position: int | None


NOW: Final = When(None, None)


class Parameters:
    """The query parameters of one request. All methods raise Problem, naming the parameter."""

    def __init__(self, request: Request, known: Iterable[str]) -> None:
        allowed = {*known, "wait_for"}
        try:
            query = request.scope["query_string"].decode("ascii")
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
        except ValueError:
            raise Problem(400, "The query string is not of the form name=value&name=value in UTF-8.") from None
        self._values: dict[str, str] = {}
        for name, value in pairs:
            if name not in allowed:
                raise Problem(400, f"There is no parameter {name[:100]!r} here, only {', '.join(sorted(allowed))}.")
            if name in self._values:
                raise Problem(400, f"The parameter {name!r} is given twice.")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """Return a parameter as it is; an empty one is none."""
        return self._values.get(name) or None

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """Return a parameter that is one of a few words."""
        if (value := self._values.get(name)) is not None and value not in choices:
            raise Problem(400, f"The parameter {name!r} must be {' or '.join(choices)}.")
        return value

    def position(self, name: str) -> int | None:
        """Return a position: a whole number, 0 or more."""
        return self._number(name, 0, _MAX_POSITION)

    def limit(self) -> int:
        """Return how many items a page may have."""
        limit = self._number("limit", 1, MAX_LIMIT)
        return DEFAULT_LIMIT if limit is None else limit

    def cursor(self, kind: str) -> str:
        """Return the key behind which the page begins; the empty string is the beginning."""
        if (cursor := self._values.get("cursor")) is None:
            return ""
        try:
            found, _, key = urlsafe_b64decode(cursor.encode("ascii") + b"==").decode().partition(":")
        except ValueError:
            found, key = "", ""
        if found != kind or encode_cursor(kind, key) != cursor:
            raise Problem(400, "The cursor is not one that a page of this list gave.")
        return key

    def number_cursor(self, kind: str) -> int:
        """Return the number behind which the page begins; 0 is the beginning."""
        key = self.cursor(kind)
        if key and not (key.isascii() and key.isdigit() and int(key) <= _MAX_POSITION):
            raise Problem(400, "The cursor is not one that a page of this list gave.")
        return int(key or "0")

    def moment_cursor(self, kind: str) -> tuple[int, int] | None:
        """Return the moment before which the page begins, None for the beginning."""
        if not (key := self.cursor(kind)):
            return None
        at, _, position = key.partition(",")
        if not all(part.isascii() and part.isdigit() and int(part) <= _MAX_POSITION for part in (at, position)):
            raise Problem(400, "The cursor is not one that a page of this list gave.")
        return int(at), int(position)

    def moment(self, name: str) -> int | None:
        """Return a time in ms since 1970 UTC, given so or in RFC 3339."""
        if (value := self._values.get(name)) is None:
            return None
        if value.isascii() and value.isdigit() and len(value) <= _MS_DIGITS:
            return int(value)
        try:
            # A `+` that was not percent-encoded arrives as a space.
            return from_rfc3339(value[:_DATE] + value[_DATE:].replace(" ", "+"))
        except ValueError:
            raise Problem(
                400, f"The parameter {name!r} must be a time: RFC 3339 with its offset, or ms since 1970."
            ) from None

    def when(self) -> When:
        """Return the moment that is asked for."""
        when = When(self.moment("at"), self.position("position"))
        if None not in when:
            raise Problem(400, "The parameters 'at' and 'position' exclude each other.")
        return when

    def span(self) -> tuple[int | None, int | None]:
        """Return the times in ms behind `from`, up to and including `to`; None is no bound."""
        start, end = self.moment("from"), self.moment("to")
        if start is not None and end is not None and start > end:
            raise Problem(400, "The parameter 'from' must not be later than 'to'.")
        return start, end

    def _number(self, name: str, least: int, most: int) -> int | None:
        if (value := self._values.get(name)) is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 19 and least <= int(value) <= most):
            raise Problem(400, f"The parameter {name!r} must be a whole number from {least} to {most}.")
        return int(value)


def encode_cursor(kind: str, key: str | int) -> str:
    """Return the opaque form of a key in a kind of list."""
    return urlsafe_b64encode(f"{kind}:{key}".encode()).decode().rstrip("=")


def segment(request: Request, name: str) -> str:
    """Return an id from the path, whose percent-encoding the router left alone. Raises Problem."""
    try:
        return unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError:
        raise Problem(400, f"The {name} in the path is not percent-encoded UTF-8.") from None
