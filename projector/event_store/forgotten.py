"""Forgotten accounts: their pseudonyms, and the forgettings that are still under way.

A forgetting is under way until no event, no quarantined request and no read model names the account. Until then its id
is stored, encrypted as events are; afterwards only a keyed hash of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, NamedTuple

from projector.database import Connection
from projector.event_store.mapper import EventMapper
from projector.event_store.pseudonyms import LIFTED, Pseudonyms, pseudonyms_in
from projector.event_store.tables import FORGETTINGS, Transactions

_UNFINISHED: Final = "SELECT id, account, pseudonym FROM forgettings WHERE LENGTH(account) > 0 ORDER BY id"
_ALL: Final = "SELECT pseudonym FROM forgotten WHERE pseudonym NOT LIKE ?"
_EARLIER: Final = f"{_ALL} AND pseudonym NOT IN (SELECT pseudonym FROM forgettings)"
_NONE: Final = b""
"""In place of an account that version 0.1.0 has forgotten: no read model has to be rebuilt for it."""

_NEWEST: Final = "SELECT COALESCE(MAX(id), 0) FROM forgettings WHERE account IS NULL OR LENGTH(account) > 0"
_INSERT: Final = "INSERT INTO forgettings (account, pseudonym) VALUES (?, ?)"


class Forgetting(NamedTuple):
    """An account that is being replaced by its pseudonym; ids of forgettings grow."""

    id: int
    account: str
    pseudonym: str


class Forgotten:
    """The tables `forgotten` and `forgettings` beside the events. All methods raise StoreUnavailable."""

    def __init__(self, transactions: Transactions, mapper: EventMapper) -> None:
        self._transactions = transactions
        self._mapper = mapper
        self._has_forgettings = False

    def begin(self, account: str) -> str:
        """Use a pseudonym in place of an account in everything stored from now on; return it.

        The same account always has the same pseudonym, until it is lifted.
        """
        with self._transactions.exclusive() as connection:
            known = pseudonyms_in(connection)
            if (pseudonym := known.of({account}).get(account)) is None:
                row = known.new_account(account)
                connection.execute("INSERT INTO forgotten (digest, key, pseudonym) VALUES (?, ?, ?)", row)
                pseudonym = row.pseudonym
            if all(forgetting.pseudonym != pseudonym for forgetting in self._unfinished(connection)):
                connection.execute(_INSERT, (self._mapper.seal(account.encode(errors="surrogatepass")), pseudonym))
            return pseudonym

    def unfinished(self) -> list[Forgetting]:
        """Return the forgettings under way, in this process, in another, or in none since one was interrupted."""
        with self._transactions.reading() as connection:
            return self._unfinished(connection)

    def unfinished_count(self) -> int:
        """Return how many they are, with those of `earlier`."""
        with self._transactions.reading() as connection:
            return len(self._unfinished(connection)) + len(self._earlier(connection))

    def earlier(self) -> list[str]:
        """Return the pseudonyms that version 0.1.0 gave, which left the ids in some events stored later."""
        with self._transactions.reading() as connection:
            return self._earlier(connection)

    def all(self) -> list[tuple[str, bool]]:
        """Return every pseudonym, in the order of forgetting, and whether it is lifted."""
        with self._transactions.reading() as connection:
            rows = [pseudonym for (pseudonym,) in connection.execute("SELECT pseudonym FROM forgotten ORDER BY id")]
        return [(pseudonym.removeprefix(LIFTED), pseudonym.startswith(LIFTED)) for pseudonym in rows]

    def newest(self) -> int:
        """Return the id of the newest forgetting, finished or not, 0 if there is none."""
        with self._transactions.reading() as connection:
            if not self._has_table(connection):
                return 0
            return int(connection.execute(_NEWEST).fetchone()[0])

    def finish_earlier(self, pseudonyms: Iterable[str]) -> None:
        """Record that no event names the accounts any more to which version 0.1.0 gave these pseudonyms."""
        with self._transactions.exclusive() as connection:
            for pseudonym in pseudonyms:
                connection.execute(_INSERT, (_NONE, pseudonym))

    def finish(self, forgettings: Iterable[Forgetting]) -> None:
        """Erase the ids of accounts that are stored nowhere else any more."""
        with self._transactions.writing() as connection:
            for forgetting in forgettings:
                connection.execute("UPDATE forgettings SET account = NULL WHERE id = ?", (forgetting.id,))

    def pseudonyms(self) -> Pseudonyms:
        """Return the pseudonyms of all forgotten accounts."""
        with self._transactions.reading() as connection:
            return pseudonyms_in(connection)

    def lift(self, pseudonym: str) -> None:
        """Store the account of a pseudonym under its own id again, from now on; the history keeps the pseudonym."""
        with self._transactions.exclusive() as connection:
            # A row with a higher id tells receivers that the list has changed; its digest is no account's.
            (key,) = connection.execute("SELECT key FROM forgotten WHERE pseudonym = ?", (pseudonym,)).fetchone()
            row = (os.urandom(16), bytes(key), LIFTED + pseudonym)
            connection.execute("INSERT INTO forgotten (digest, key, pseudonym) VALUES (?, ?, ?)", row)
            connection.execute("DELETE FROM forgotten WHERE pseudonym = ?", (pseudonym,))

    def _unfinished(self, connection: Connection) -> list[Forgetting]:
        if not self._has_table(connection):
            return []
        return [
            Forgetting(row_id, self._mapper.unseal(bytes(account)).decode(errors="surrogatepass"), pseudonym)
            for row_id, account, pseudonym in connection.execute(_UNFINISHED)
        ]

    def _earlier(self, connection: Connection) -> list[str]:
        query = _EARLIER if self._has_table(connection) else _ALL
        return [pseudonym for (pseudonym,) in connection.execute(query, (f"{LIFTED}%",))]

    def _has_table(self, connection: Connection) -> bool:
        """Return whether there are forgettings: a store of version 0.1.0 that is only read has no such table."""
        self._has_forgettings = self._has_forgettings or connection.has_table(FORGETTINGS.name)
        return self._has_forgettings
