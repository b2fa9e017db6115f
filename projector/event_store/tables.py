"""The tables beside the library's `stored_events`, and the transactions in which they are used."""

from contextlib import AbstractContextManager
from typing import Final, Protocol

from projector.database import Column, Connection, Index, Table, integers, optional_text, text

IDENTITIES: Final = Table("identities", 1, (Column("identity", "bytes"), *integers("position")))
QUARANTINE: Final = Table(
    "quarantine",
    1,
    (
        *integers("id"),
        Column("digest", "bytes", unique=True),
        *integers("received_at", "times"),
        *text("reason"),
        *optional_text("command", "platform"),
        Column("body", "bytes"),
        Column("position", "integer", required=False),
    ),
    numbered=True,
)
FORGOTTEN: Final = Table(
    "forgotten",
    1,
    (*integers("id"), Column("digest", "bytes", unique=True), Column("key", "bytes"), *text("pseudonym")),
    numbered=True,
)
FORGETTINGS: Final = Table(
    "forgettings",
    1,
    (*integers("id"), Column("account", "bytes", required=False), Column("pseudonym", "text")),
    numbered=True,
)
REDACTIONS: Final = Table("redactions", 1, (*integers("position"), Column("fingerprint", "bytes")))

TABLES: Final = (IDENTITIES, QUARANTINE, FORGOTTEN, FORGETTINGS, REDACTIONS)
INDEXES: Final = (Index("quarantine_waiting", "quarantine", ("id",), "position IS NULL"),)


class Transactions(Protocol):
    """Transactions on the database of the events. All raise StoreUnavailable."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a connection on which nothing is written."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that is committed at the end, or rolled back on any exception."""

    def exclusive(self) -> AbstractContextManager[Connection]:
        """Open a transaction as `writing` does, during which no other process appends, quarantines or forgets."""

    def erase_traces(self) -> bool:
        """Remove what was overwritten or deleted from the database's files; return whether they are clean now."""
