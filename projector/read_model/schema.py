"""The tables of the read model, for both databases. Evidence is JSON text that SQL does not look into."""

from typing import Final

from projector.database import Column, Index, Table, integers, optional_text, text

SCHEMA_VERSION: Final = 2
"""A read model of another schema version is not used; it is rebuilt from the events."""

MARK: Final = Table("mark", 1, (*integers("id", "position"), Column("fingerprint", "bytes")))
CHECKPOINTS: Final = Table("checkpoints", 1, (*text("projection"), *integers("version", "position")))
FORGOTTEN_THROUGH: Final = Table("forgotten_through", 1, integers("id", "forgetting"))
SET_ASIDE: Final = Table("set_aside", 2, (*integers("position"), *text("projection", "reason"), *integers("at")))

MEMBERS: Final = Table(
    "members",
    2,
    (
        *text("group_id", "user_id"),
        *integers("standing", "position", "at"),
        *optional_text("change"),
        *text("evidence"),
    ),
)
EARLIER_MEMBERS: Final = Table(
    "earlier_members",
    3,
    (*text("group_id", "user_id"), *integers("position", "at"), *optional_text("change"), *text("evidence")),
)
ROSTERS: Final = Table("rosters", 1, (*text("group_id"), *integers("member_count"), *text("lives")))
ROSTER_SNAPSHOTS: Final = Table(
    "roster_states", 2, (*text("group_id"), *integers("version", "position", "member_count"), *text("lives"))
)
ROSTER_USERS: Final = Table("roster_users", 2, (*text("group_id"), *integers("version", "size"), *text("users")))
PROFILES: Final = Table(
    "profiles",
    1,
    (
        *text("group_id", "status"),
        *optional_text("type", "name"),
        *integers("owner_at", "owner_position"),
        *optional_text("owner"),
        *text("evidence"),
    ),
)
PROFILE_SNAPSHOTS: Final = Table("profile_states", 2, (*text("group_id"), *integers("version"), *text("evidence")))
FULLNESS: Final = Table("fullness", 1, (*text("group_id"), *integers("is_full"), *text("evidence")))
FULLNESS_SNAPSHOTS: Final = Table("fullness_states", 2, (*text("group_id"), *integers("version"), *text("evidence")))
BLOCKS: Final = Table(
    "blocks",
    2,
    (*text("group_id"), *integers("number", "earliest_at", "latest_at", "last_version", "last_position")),
)
DISMISSALS: Final = Table("dismissals", 3, (*text("group_id"), *integers("at", "position")))

PROJECTION_TABLES: Final = {
    "membership": (MEMBERS, EARLIER_MEMBERS, ROSTERS, ROSTER_SNAPSHOTS, ROSTER_USERS),
    "profile": (PROFILES, PROFILE_SNAPSHOTS),
    "fullness": (FULLNESS, FULLNESS_SNAPSHOTS),
    "timeline": (BLOCKS, DISMISSALS),
}
"""The tables that each projection writes."""

TABLES: Final = (
    MARK,
    FORGOTTEN_THROUGH,
    CHECKPOINTS,
    SET_ASIDE,
    *(table for tables in PROJECTION_TABLES.values() for table in tables),
)

INDEXED_LENGTH: Final = 200
"""Characters of a text in an index of PostgreSQL, whose index rows must fit into a third of a page, 2.7 KB."""


def indexed_part(column: str) -> str:
    """Return the expression for the part of a text that PostgreSQL has in an index."""
    return f"substr({column}, 1, {INDEXED_LENGTH})"


_INDEXES: Final = (
    Index("members_present", "members", ("group_id", "user_id"), "standing = 1"),
    Index("members_awaiting", "members", ("group_id", "user_id"), "standing = 2"),
    Index("members_by_user", "members", ("user_id", "standing", "group_id")),
    Index("profiles_by_status", "profiles", ("status", "group_id")),
    Index("fullness_full", "fullness", ("group_id",), "is_full = 1"),
)
SQLITE_INDEXES: Final = (
    *_INDEXES,
    Index("profiles_by_type", "profiles", ("type", "status", "group_id")),
    Index("profiles_by_name", "profiles", ("name", "group_id", "type", "status")),
)
POSTGRES_INDEXES: Final = (
    *_INDEXES,
    Index("profiles_by_type_part", "profiles", (indexed_part("type"), "status", "group_id")),
    Index("profiles_by_name_part", "profiles", (indexed_part("name"), "group_id", "status")),
)
REPLACED_POSTGRES_INDEXES: Final = ("profiles_by_type", "profiles_by_name")
"""Indexes that version 0.1.0 created on PostgreSQL, over whole texts: no row with a longer text can be inserted."""
