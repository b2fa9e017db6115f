"""The tables of the read model, for every database it is kept in.

Text is compared by code point, as Python compares it. JSON is kept as text: what the folds know is for them alone.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

SCHEMA_VERSION: Final = 2
"""Tables of another schema are not read; the read model is built again from the events."""

Type: TypeAlias = Literal["text", "integer", "bytes"]


class Column(NamedTuple):
    """A column; one that may not be null says so, unless it is of the key."""

    name: str
    type: Type
    required: bool = True


class Table(NamedTuple):
    """A table, whose key is its first `width` columns."""

    name: str
    width: int
    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the key's columns."""
        return tuple(column.name for column in self.columns[: self.width])


class Index(NamedTuple):
    """An index, over all rows or those that meet a condition."""

    name: str
    table: str
    columns: tuple[str, ...]
    condition: str = ""

    @property
    def statement(self) -> str:
        """What creates it."""
        condition = f" WHERE {self.condition}" if self.condition else ""
        return f"CREATE INDEX IF NOT EXISTS {self.name} ON {self.table} ({', '.join(self.columns)}){condition}"


def _text(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "text") for name in names)


def _integers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "integer") for name in names)


def _optional(name: str) -> tuple[Column, ...]:
    return (Column(name, "text", required=False),)


MARK: Final = Table("mark", 1, (*_integers("id", "position"), Column("fingerprint", "bytes")))
CHECKPOINTS: Final = Table("checkpoints", 1, (*_text("projection"), *_integers("version", "position")))
SET_ASIDE: Final = Table("set_aside", 2, (*_integers("position"), *_text("projection", "reason"), *_integers("at")))

OWNED: Final = {
    "membership": (
        Table(
            "members",
            2,
            (
                *_text("group_id", "user_id"),
                *_integers("standing", "position", "at"),
                *_optional("change"),
                *_text("evidence"),
            ),
        ),
        Table(
            "earlier_members",
            3,
            (*_text("group_id", "user_id"), *_integers("position", "at"), *_optional("change"), *_text("evidence")),
        ),
        Table("rosters", 1, (*_text("group_id"), *_integers("member_count"), *_text("lives"))),
        Table(
            "roster_states",
            2,
            (*_text("group_id"), *_integers("version", "position", "member_count"), *_text("lives")),
        ),
        Table("roster_users", 2, (*_text("group_id"), *_integers("version", "size"), *_text("users"))),
    ),
    "profile": (
        Table(
            "profiles",
            1,
            (
                *_text("group_id", "status"),
                *_optional("type"),
                *_optional("name"),
                *_integers("owner_at", "owner_position"),
                *_optional("owner"),
                *_text("evidence"),
            ),
        ),
        Table("profile_states", 2, (*_text("group_id"), *_integers("version"), *_text("evidence"))),
    ),
    "fullness": (
        Table("fullness", 1, (*_text("group_id"), *_integers("is_full"), *_text("evidence"))),
        Table("fullness_states", 2, (*_text("group_id"), *_integers("version"), *_text("evidence"))),
    ),
    "timeline": (
        Table(
            "blocks",
            2,
            (*_text("group_id"), *_integers("number", "earliest_at", "latest_at", "last_version", "last_position")),
        ),
        Table("dismissals", 3, (*_text("group_id"), *_integers("at", "position"))),
    ),
}
"""The tables each projection owns."""

TABLES: Final = {
    table.name: table
    for table in (MARK, CHECKPOINTS, SET_ASIDE, *(table for owned in OWNED.values() for table in owned))
}

INDEXES: Final = (
    Index("members_present", "members", ("group_id", "user_id"), "standing = 1"),
    Index("members_awaiting", "members", ("group_id", "user_id"), "standing = 2"),
    Index("members_by_user", "members", ("user_id", "standing", "group_id")),
    Index("profiles_by_type", "profiles", ("type", "status", "group_id")),
    Index("profiles_by_status", "profiles", ("status", "group_id")),
    Index("profiles_by_name", "profiles", ("name", "group_id", "type", "status")),
    Index("fullness_full", "fullness", ("group_id",), "is_full = 1"),
)
