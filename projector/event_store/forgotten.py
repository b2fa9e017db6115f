"""Who is forgotten, and what is written in their stead: by keyed hashes, so that nobody's id can be read off."""

from __future__ import annotations

import os
import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from projector.domain.redaction import mentioned, mentioned_in_unreadable, redact, redact_unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from projector.domain.events import Event

_KEY_BYTES: Final = 16
_MAX_CACHED_OTHERS: Final = 20_000
_SHORT: Final = 64
"""Of so many texts up to this length it is remembered that they are nobody's who is forgotten: a hash takes longer."""


class Pseudonym(NamedTuple):
    """A row: the hash of an account's id, the key of that hash, the same for all, and the pseudonym."""

    digest: bytes
    key: bytes
    pseudonym: str


class UnreadableRequest(NamedTuple):
    """An authentic request that could not be read, as far as it may name people: what is said of it, and its body."""

    texts: tuple[str | None, ...]
    body: bytes


class Pseudonyms:
    """All rows that there were up to, and with, one; given as id, hash, key and pseudonym."""

    def __init__(self, rows: Iterable[tuple[int, bytes, bytes, str]] = ()) -> None:
        known = {place: Pseudonym(bytes(digest), bytes(key), pseudonym) for place, digest, key, pseudonym in rows}
        self.through = max(known, default=0)
        self._key = next((row.key for row in known.values()), b"")
        self._by_digest = {row.digest: row.pseudonym for row in known.values()}
        self._others: set[str] = set()

    def of(self, accounts: AbstractSet[str]) -> dict[str, str]:
        """Return the pseudonyms of those among these accounts that are forgotten."""
        unknown = accounts - self._others
        found = ((account, self._by_digest.get(_hashed(account, self._key))) for account in unknown)
        names = {account: pseudonym for account, pseudonym in found if pseudonym}
        if len(self._others) > _MAX_CACHED_OTHERS:
            self._others = set()
        self._others |= {other for other in unknown - names.keys() if len(other) <= _SHORT}
        return names

    def another(self, account: str) -> Pseudonym:
        """Return the row by which one more account is forgotten, under a name that nobody has had."""
        key = self._key or os.urandom(_KEY_BYTES)
        return Pseudonym(_hashed(account, key), key, f"forgotten-{secrets.token_hex(8)}")

    def instead(self, event: Event) -> Event:
        """Return what is to be recorded instead of an event: the event itself if nobody in it is forgotten."""
        names = self.of(mentioned(event)) if self._by_digest else None
        return redact(event, names) if names else event

    def redacted_request_of(self, told: UnreadableRequest) -> UnreadableRequest:
        """Return what is to be kept instead of what could not be read."""
        if not self._by_digest:
            return told
        told_of = [told.body, *(_bytes(text) for text in told.texts if text)]
        names = self.of({word for some in told_of for word in mentioned_in_unreadable(some)})
        return redacted_request(told, names) if names else told


def redacted_request(told: UnreadableRequest, names: Mapping[str, str]) -> UnreadableRequest:
    """Return what could not be read, and what is said of it, with accounts replaced by pseudonyms."""
    texts = [text and redact_unreadable(_bytes(text), names).decode(errors="surrogatepass") for text in told.texts]
    return UnreadableRequest(tuple(texts), redact_unreadable(told.body, names))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _hashed(account: str, key: bytes) -> bytes:
    return blake2b(account.encode(errors="surrogatepass"), key=key, digest_size=16).digest()
