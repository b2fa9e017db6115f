"""Transactions on the read model, in SQL for both databases. Its tables change only together with a checkpoint."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from projector.database import Connection
from projector.read_model.rows import Checkpoint, Mark, SetAside, TableRows
from projector.read_model.schema import FORGOTTEN_THROUGH, MARK, PROJECTION_TABLES, SET_ASIDE
from projector.read_model.sql_tables import SQLTables


class ReadTransaction:
    """One consistent state of the read model. `connection` is inside a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Return the checkpoint of each projection."""
        rows = self._connection.execute("SELECT projection, version, position FROM checkpoints")
        return {projection: Checkpoint(version, position) for projection, version, position in rows}

    def mark(self) -> Mark | None:
        """Return the newest event in the read model, None before the first."""
        return read_mark(self._connection)

    def forgotten_through(self) -> int:
        """Return the newest forgetting when this read model was built: it knows the accounts of later ones by id."""
        return read_forgotten_through(self._connection)

    def set_aside_events(self) -> list[SetAside]:
        """Return the events set aside, by position."""
        return set_aside_events(self._connection)

    def rows(self, projection: str, group_id: str | None = None) -> list[TableRows]:
        """Return the rows of each of a projection's tables, of all groups or of one. They are read while iterated."""
        condition, arguments = ("", ()) if group_id is None else (" WHERE group_id = ?", (group_id,))
        return [
            TableRows(
                table.name,
                table.width,
                self._connection.stream(
                    f"SELECT * FROM {table.name}{condition} ORDER BY {', '.join(table.key)}", arguments
                ),
            )
            for table in sorted(PROJECTION_TABLES[projection])
        ]


class UnitOfWork(ReadTransaction):
    """A transaction that changes the read model.

    `unavailable` raises ReadModelUnavailable in place of the database's errors, except those that a row caused.
    """

    def __init__(self, connection: Connection, unavailable: AbstractContextManager[None]) -> None:
        super().__init__(connection)
        self._unavailable = unavailable
        self._tables = SQLTables(connection)

    @contextmanager
    def advance(self, *projections: str, through: int) -> Iterator[SQLTables]:
        """Give access to the tables, then move the checkpoints of these projections. Any exception undoes both.

        A checkpoint above `through` stays where it is, for events set aside are applied late.
        """
        with self._unavailable, _savepoint(self._connection):
            yield self._tables
            for projection in projections:
                self._move_checkpoint(projection, through)

    def delete_group(self, projection: str, group_id: str) -> None:
        """Delete a group's rows of a projection, to write them again."""
        for table in PROJECTION_TABLES[projection]:
            self._connection.execute(f"DELETE FROM {table.name} WHERE group_id = ?", (group_id,))

    def save_mark(self, mark: Mark) -> None:
        """Save the newest event in the read model."""
        self._connection.upsert(MARK, [(1, *mark)])

    def touch(self) -> None:
        """Make this transaction a new state for those who cache responses, although nothing changes."""
        if mark := self.mark():
            # SQLite writes no page if a row is replaced by an equal one.
            self._connection.execute("DELETE FROM mark")
            self.save_mark(mark)

    def set_aside(self, projection: str, position: int, *, reason: str, at: int) -> None:
        """Move the checkpoint past an event that could not be applied; record it with the time in ms since 1970 UTC."""
        self._connection.upsert(SET_ASIDE, [(position, projection, reason, at)])
        self._move_checkpoint(projection, position)

    def resolve(self, projection: str, position: int) -> None:
        """Delete the record of an event set aside, which is now applied."""
        self._connection.execute("DELETE FROM set_aside WHERE projection = ? AND position = ?", (projection, position))

    def _move_checkpoint(self, projection: str, through: int) -> None:
        self._connection.execute(
            "UPDATE checkpoints SET position = ? WHERE projection = ? AND position < ?", (through, projection, through)
        )


def read_mark(connection: Connection) -> Mark | None:
    """Return the newest event in the read model, None before the first."""
    row = connection.execute("SELECT position, fingerprint FROM mark").fetchone()
    return Mark(*row) if row else None


def read_forgotten_through(connection: Connection) -> int:
    """Return the newest forgetting when the read model was built; version 0.1.0 records none."""
    if not connection.has_table(FORGOTTEN_THROUGH.name):
        return 0
    row = connection.execute("SELECT forgetting FROM forgotten_through").fetchone()
    return int(row[0]) if row else 0


def set_aside_events(connection: Connection) -> list[SetAside]:
    """Return the events set aside, by position."""
    rows = connection.execute("SELECT projection, position, reason, at FROM set_aside ORDER BY position, projection")
    return [SetAside(*row) for row in rows]


@contextmanager
def commit_or_roll_back(connection: Connection) -> Iterator[Connection]:
    """End a transaction that has begun: commit it, or roll it back on any exception."""
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Undo the changes made inside, and only those, on any exception."""
    connection.execute("SAVEPOINT projection")
    try:
        yield
    except BaseException:
        # Some errors have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK TO projection")
            connection.execute("RELEASE projection")
        raise
    connection.execute("RELEASE projection")
