"""Answers that are given again, byte for byte, for as long as the read model does not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from starlette.types import Scope, Send

MAX_BYTES: Final = 16 * 1024 * 1024

_Header = tuple[bytes, bytes]


class Answer(NamedTuple):
    """A whole answer: its ETag, its body, what headers speak of the body, and what others there are."""

    etag: str
    body: bytes
    of_body: tuple[_Header, ...]
    others: tuple[_Header, ...]


class ResponseCache:
    """Answers by their address, forgotten all together when the read model changes or they become too many.

    `version` tells one state of the read model from every other, or None if it cannot: nothing is remembered then.
    """

    def __init__(self, version: Callable[[], Hashable | None], max_bytes: int = MAX_BYTES) -> None:
        self.version = version
        self._max_bytes = max_bytes
        self._of: Hashable | None = None
        self._bytes = 0
        self._answers: dict[tuple[bytes, bytes], Answer] = {}

    def find(self, scope: Scope) -> Answer | None:
        """Return the answer to a request, if it was given before and is still true."""
        if not self._answers or scope["method"] != "GET":
            return None
        if self.version() != self._of:
            self._forget()
            return None
        return self._answers.get((scope["raw_path"], scope["query_string"]))

    def keep(self, scope: Scope, version: Hashable | None, answer: Answer) -> None:
        """Remember an answer that was found in the state of this version, or in a later one."""
        if version is None or scope["method"] != "GET":
            return
        if version != self._of or self._bytes + len(answer.body) > self._max_bytes:
            self._forget()
        self._of = version
        self._bytes += len(answer.body)
        self._answers[scope["raw_path"], scope["query_string"]] = answer

    def _forget(self) -> None:
        self._answers.clear()
        self._bytes = 0


async def send_again(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer, or say that the asker has it already."""
    status, body, headers = 200, answer.body, answer.of_body + answer.others
    for name, value in scope["headers"]:
        if name == b"if-none-match" and matches(value.decode("latin-1"), answer.etag):
            status, body, headers = 304, b"", answer.others
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def matches(if_none_match: str, etag: str) -> bool:
    """Tell whether an `If-None-Match` names this ETag."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
