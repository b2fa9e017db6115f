"""The tables beside the library's `stored_events`, and the transactions in which they are used."""

from contextlib import AbstractContextManager
from typing import Final, Protocol

from projector.database import Column, Connection, Index, Table, integers, optional_text, text
from projector.event_store import StoreUnavailable

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

APP: Final = Table("app", 1, integers("id", "sdk_app_id"))
"""One row, of id 1, from the first start with an SDKAppID on."""

RECONCILIATIONS: Final = Table(
    "reconciliations", 1, (*integers("id", "started_at"), *text("state", "report")), numbered=True
)
COMPARED_GROUPS: Final = Table(
    "compared_groups",
    1,
    (
        *text("group_id"),
        *integers("run"),
        *text("state"),
        Column("due_at", "integer", required=False),
        *optional_text("found"),
        Column("compared_at", "integer", required=False),
        Column("verified_at", "integer", required=False),
    ),
)
"""The groups of the newest run, and what it found; `compared_at` and `verified_at` are of any run."""

NOTICES: Final = Table(
    "notices",
    1,
    (*integers("id"), *text("kind"), *optional_text("subject", "positions"), *integers("at")),
    numbered=True,
)
ANNOUNCED: Final = Table("announced", 1, text("name", "value"))
"""What the read model that was announced last says of itself: versions, and events set aside."""

TABLES: Final = (
    *(IDENTITIES, QUARANTINE, FORGOTTEN, FORGETTINGS, REDACTIONS, APP),
    *(RECONCILIATIONS, COMPARED_GROUPS, NOTICES, ANNOUNCED),
)
RELEASED: Final = ("stored_events", "identities", "quarantine", "forgotten", "redactions")
"""The tables that stores of all released versions have; the others may be missing from a store that is only read."""

INDEXES: Final = (
    Index("quarantine_waiting", "quarantine", ("id",), "position IS NULL"),
    Index("compared_groups_by_state", "compared_groups", ("run", "state", "due_at", "group_id")),
    Index("notices_history_changed", "notices", ("id",), "kind = 'history.changed'"),
)


def require_tables(connection: Connection, database: str) -> None:
    """Raise StoreUnavailable unless the database, which is described as `database`, is an event store."""
    if missing := [name for name in RELEASED if not connection.has_table(name)]:
        raise StoreUnavailable(
            f"{database} is not an event store: it has no table{'s' * (len(missing) > 1)} {', '.join(missing)};"
            " set PROJECTOR_DATABASE_URL to the database of `serve`"
        )


class Transactions(Protocol):
    """Transactions on the database of the events. All raise StoreUnavailable."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a connection on which nothing is written."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that is committed at the end, or rolled back on any exception."""

    def exclusive(self) -> AbstractContextManager[Connection]:
        """Open a transaction as `writing` does, during which no other process appends, quarantines or forgets."""

    def damage(self) -> list[str]:
        """Return a line for each damage that the database finds in its own files, as far as it can check them."""

    def erase_traces(self) -> bool:
        """Remove what was overwritten or deleted from the database's files; return whether they are clean now."""
