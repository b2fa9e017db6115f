"""What SQLite and PostgreSQL are used through alike: descriptions of tables, and connections.

Text is compared by code point, as Python compares it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

Type: TypeAlias = Literal["text", "integer", "bytes"]


class Column(NamedTuple):
    """A column; `required` columns hold no NULL."""

    name: str
    type: Type
    required: bool = True
    unique: bool = False


class Table(NamedTuple):
    """A table whose primary key is its first `width` columns; a `numbered` table's key is given by the database."""

    name: str
    width: int
    columns: tuple[Column, ...]
    numbered: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns[: self.width])


class Index(NamedTuple):
    """An index over all rows, or over those that meet a condition."""

    name: str
    table: str
    columns: tuple[str, ...]
    condition: str = ""

    @property
    def statement(self) -> str:
        """The statement that creates the index unless it exists."""
        condition = f" WHERE {self.condition}" if self.condition else ""
        return f"CREATE INDEX IF NOT EXISTS {self.name} ON {self.table} ({', '.join(self.columns)}){condition}"


def text(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "text") for name in names)


def integers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "integer") for name in names)


def optional_text(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "text", required=False) for name in names)


def optional_integers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "integer", required=False) for name in names)


class Result(Protocol):
    """The rows that a statement returns."""

    def __iter__(self) -> Iterator[Any]: ...

    def fetchone(self) -> Any:
        """Return the next row, None if there is none."""


class Connection(Protocol):
    """A connection to a database. Statements mark arguments with `?` and are SQL that both databases understand."""

    @property
    def in_transaction(self) -> bool: ...

    def execute(self, statement: str, arguments: Sequence[Any] = (), /) -> Result: ...

    def stream(self, query: str, arguments: Sequence[Any] = (), /) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a result that may be larger than memory."""

    def bounded(
        self, query: str, arguments: Sequence[Any] = (), /, *, order: str, text: str, max_bytes: int
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query that is ordered by a unique column.

        At least those up to the first that makes the values of a column of text larger than `max_bytes` together;
        none beyond it is held in memory.
        """

    def find(self, columns: str, table: Table, keys: Iterable[Sequence[Any]], /) -> Iterator[tuple[Any, ...]]:
        """Yield these columns of the rows that have one of these keys, in any order."""

    def find_newest(self, columns: str, table: Table, keys: Iterable[Sequence[Any]], /) -> Iterator[tuple[Any, ...]]:
        """Yield these columns of the row with the greatest last column of the key, for each key without this column."""

    def has_table(self, name: str, /) -> bool: ...

    def upsert(self, table: Table, rows: Iterable[Sequence[Any]], /) -> None:
        """Insert whole rows, or replace those that have the same key."""

    def delete(self, table: Table, keys: Iterable[Sequence[Any]], /) -> None:
        """Delete the rows that have one of these keys."""
