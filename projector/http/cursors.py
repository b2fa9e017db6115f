"""Cursors: where the next page of a list begins, opaque to clients."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from projector.http.problems import Problem

MAX_POSITION: Final = 2**63 - 1


def number(key: str) -> int:
    """Return a key that is a position or a version. Raises ValueError."""
    if not (key.isascii() and key.isdigit() and int(key) <= MAX_POSITION):
        raise ValueError(key)
    return int(key)


def moment(key: str) -> tuple[int, int]:
    """Return a key that is an effective time in ms and a position. Raises ValueError."""
    at, _, position = key.partition(",")
    return number(at), number(position)


class Cursor(NamedTuple):
    """A kind of cursor, valid for one kind of list. `read` decodes the key of the item before the next page."""

    kind: str
    read: Callable[[str], Any] = str

    def encode(self, key: str | int | tuple[int, int]) -> str:
        """Return the cursor of the page after the item with this key."""
        text = ",".join(map(str, key)) if isinstance(key, tuple) else key
        return urlsafe_b64encode(f"{self.kind}:{text}".encode()).decode().rstrip("=")

    def decode(self, cursor: str) -> Any:
        """Return the key of the last item of the page before, None for the first page. Raises Problem."""
        try:
            kind, _, key = urlsafe_b64decode(cursor.encode("ascii") + b"==").decode().partition(":")
            if kind == self.kind and self.encode(key) == cursor:
                return self.read(key) if key else None
        except ValueError:
            pass
        raise Problem(400, "The cursor does not belong to this list.")
