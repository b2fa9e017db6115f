"""The tables of the read model, for both databases. Evidence is JSON text that SQL does not look into."""

from typing import Final

from projector.database import Column, Index, Table, integers, optional_integers, optional_text, text

SCHEMA_VERSION: Final = 3
"""A read model of another schema version is not used; it is rebuilt from the events."""

MARK: Final = Table("mark", 1, (*integers("id", "position"), Column("fingerprint", "bytes")))
CHECKPOINTS: Final = Table("checkpoints", 1, (*text("projection"), *integers("version", "position")))
FORGOTTEN_THROUGH: Final = Table("forgotten_through", 1, integers("id", "forgetting"))
SET_ASIDE: Final = Table("set_aside", 2, (*integers("position"), *text("projection", "reason"), *integers("at")))

GROUPS: Final = Table(
    "groups",
    1,
    (
        *text("group_id"),
        *optional_text("type"),
        *text("status"),
        *optional_text("owner"),
        *integers("member_count"),
        *optional_integers("member_limit"),
        *integers("roster_complete", "is_full"),
        *optional_integers("full_at", "created_at", "dismissed_at"),
        *integers("updated_at", "position", "roster_floor_at", "roster_floor_position"),
        *text("evidence"),
    ),
)
PROFILES: Final = Table(
    "profiles",
    1,
    (
        *text("group_id"),
        *optional_text("name", "introduction", "notification", "face_url"),
        *text("custom_fields", "attributes", "evidence"),
    ),
)
MEMBERS: Final = Table(
    "members",
    2,
    (
        *text("group_id", "user_id"),
        *integers("joined_at", "entered_at", "entered_position"),
        *text("role"),
        *optional_text("name_card", "join_type", "operator"),
        *text("shown"),
        *integers("position", "at", "is_first"),
        *optional_text("change", "evidence"),
    ),
)
"""Users whose newest evidence is being a member: a join or an observation, whose moment is `entered`.

They are members if they entered after the group's `roster_floor`. Of a plain join, `joined_at` is `entered_at`.

`role` is their own, `Admin` or `Member`; `shown` is the member with this role, as the JSON of an answer. `evidence` is
null if it is only the join that the columns show.
"""

MEMBER_VERSIONS: Final = Table(
    "member_versions",
    3,
    (
        *text("group_id", "user_id"),
        *integers("position", "at", "is_first"),
        *optional_text("change"),
        *text("evidence"),
    ),
)
"""Evidence about users that is older than that in `members`, or about users who are not in it."""

ROSTER_USERS: Final = Table("roster_users", 2, (*text("group_id"), *integers("version", "size"), *text("users")))
SNAPSHOTS: Final = Table("group_snapshots", 2, (*text("group_id"), *integers("version"), *text("evidence")))
BLOCKS: Final = Table(
    "blocks",
    2,
    (*text("group_id"), *integers("number", "earliest_at", "latest_at", "last_version", "last_position")),
)
DISMISSALS: Final = Table("dismissals", 3, (*text("group_id"), *integers("at", "position")))

PROJECTION_TABLES: Final = {
    "groups": (GROUPS, PROFILES, MEMBERS, MEMBER_VERSIONS, ROSTER_USERS, SNAPSHOTS, BLOCKS, DISMISSALS),
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
    Index("members_by_user", "members", ("user_id", "group_id")),
    Index("member_versions_by_user", "member_versions", ("user_id", "group_id"), "is_first = 1"),
    Index("groups_by_status", "groups", ("status", "group_id")),
    Index("groups_full", "groups", ("group_id",), "is_full = 1"),
)
SQLITE_INDEXES: Final = (
    *_INDEXES,
    Index("groups_by_type", "groups", ("type", "group_id")),
    Index("profiles_by_name", "profiles", ("name", "group_id")),
)
POSTGRES_INDEXES: Final = (
    *_INDEXES,
    Index("groups_by_type", "groups", (indexed_part("type"), "group_id")),
    Index("profiles_by_name", "profiles", (indexed_part("name"), "group_id")),
)
