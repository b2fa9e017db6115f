"""The pseudonyms of forgotten accounts, found by keyed hashes of the accounts' ids."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from projector.database import Connection
from projector.domain.events import Event
from projector.domain.redaction import mentioned, mentioned_in_unreadable, redact, redact_unreadable

if TYPE_CHECKING:
    from projector.event_store.quarantine import UnreadableRequest

LIFTED: Final = "lifted-"
"""Begins, in the table, the pseudonym of an account that is known under its own id again."""

_KEY_BYTES: Final = 16
_MAX_CACHED: Final = 20_000
_MAX_CACHED_LENGTH: Final = 64
"""Texts up to this length, and not more than `_MAX_CACHED`, are cached as not forgotten: hashing takes longer."""


class ForgottenAccount(NamedTuple):
    """A row of the table: the hash of an account's id, the key of all hashes, and the account's pseudonym."""

    digest: bytes
    key: bytes
    pseudonym: str


class Pseudonyms:
    """The pseudonyms of all forgotten accounts, from the rows (id, digest, key, pseudonym) of the table.

    `through` is the newest row's id, 0 if nobody is forgotten.
    """

    def __init__(self, rows: Iterable[tuple[int, bytes, bytes, str]] = ()) -> None:
        accounts = {
            row_id: ForgottenAccount(bytes(digest), bytes(key), pseudonym) for row_id, digest, key, pseudonym in rows
        }
        self.through = max(accounts, default=0)
        self._key = next((account.key for account in accounts.values()), b"")
        self._by_digest = {account.digest: account.pseudonym for account in accounts.values()}
        self._not_forgotten: set[str] = set()

    def of(self, candidates: AbstractSet[str]) -> dict[str, str]:
        """Return the pseudonyms of the candidates that are forgotten accounts."""
        unknown = candidates - self._not_forgotten
        pseudonyms = {
            candidate: pseudonym
            for candidate in unknown
            if (pseudonym := self._by_digest.get(_keyed_hash(candidate, self._key)))
        }
        if len(self._not_forgotten) > _MAX_CACHED:
            self._not_forgotten = set()
        self._not_forgotten |= {
            candidate for candidate in unknown - pseudonyms.keys() if len(candidate) <= _MAX_CACHED_LENGTH
        }
        return pseudonyms

    def new_account(self, account: str) -> ForgottenAccount:
        """Return the row that forgets another account, under a pseudonym never used before."""
        key = self._key or os.urandom(_KEY_BYTES)
        return ForgottenAccount(_keyed_hash(account, key), key, f"forgotten-{secrets.token_hex(8)}")

    def redacted(self, event: Event) -> Event:
        """Return the event to store: the same object if it mentions no forgotten account."""
        pseudonyms = self.of(mentioned(event)) if self._by_digest else None
        return redact(event, pseudonyms) if pseudonyms else event

    def redacted_request(self, request: UnreadableRequest) -> UnreadableRequest:
        """Return the unreadable request to store."""
        if not self._by_digest:
            return request
        texts = [request.body, *(_bytes(text) for text in (request.reason, request.command, request.platform) if text)]
        pseudonyms = self.of({word for text in texts for word in mentioned_in_unreadable(text)})
        return redact_request(request, pseudonyms) if pseudonyms else request


def pseudonyms_in(connection: Connection) -> Pseudonyms:
    """Return the pseudonyms as a transaction sees them."""
    return Pseudonyms(map(tuple, connection.execute("SELECT id, digest, key, pseudonym FROM forgotten ORDER BY id")))


def newest_pseudonym(connection: Connection) -> int:
    """Return the id of the newest row of the table, 0 if there is none."""
    return int(connection.execute("SELECT COALESCE(MAX(id), 0) FROM forgotten").fetchone()[0])


def redact_request(request: UnreadableRequest, pseudonyms: Mapping[str, str]) -> UnreadableRequest:
    """Replace accounts by pseudonyms in an unreadable request and in what is kept with it."""

    def redacted(text: str) -> str:
        return redact_unreadable(_bytes(text), pseudonyms).decode(errors="surrogatepass")

    return request._replace(
        body=redact_unreadable(request.body, pseudonyms),
        reason=redacted(request.reason),
        command=request.command and redacted(request.command),
        platform=request.platform and redacted(request.platform),
    )


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _keyed_hash(account: str, key: bytes) -> bytes:
    return blake2b(account.encode(errors="surrogatepass"), key=key, digest_size=16).digest()
