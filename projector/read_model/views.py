"""Views for people and other programs, at the same names over every replay. docs/sql.md documents them."""

from collections.abc import Callable
from typing import Final

NAMES: Final = ("current_groups", "current_members")


def statements(rfc3339: Callable[[str], str], *, create: str, of: str = "", at: str = "") -> list[str]:
    """Return the statements that create the views, each with a `create` clause, over tables in the schema `of`.

    The views are created in the schema `at`. `rfc3339` returns an expression for the time in a column of ms.
    """
    groups = f"""{create} {at}current_groups AS SELECT
        groups.group_id, type, status, name, introduction, notification, face_url, owner,
        COALESCE(custom_fields, '{{}}') AS custom_fields, COALESCE(attributes, '{{}}') AS attributes,
        member_count, member_limit, roster_complete = 1 AS roster_complete, is_full = 1 AS is_full,
        {rfc3339("full_at")} AS full_at, {rfc3339("created_at")} AS created_at,
        {rfc3339("dismissed_at")} AS dismissed_at, {rfc3339("updated_at")} AS updated_at, position
        FROM {of}groups AS groups LEFT JOIN {of}profiles AS profiles ON profiles.group_id = groups.group_id"""
    members = f"""{create} {at}current_members AS SELECT
        members.group_id, user_id, CASE WHEN user_id = owner THEN 'Owner' ELSE role END AS role, name_card,
        {rfc3339("joined_at")} AS joined_at, joined_at AS joined_at_ms, join_type, operator
        FROM {of}members AS members JOIN {of}groups AS groups ON groups.group_id = members.group_id
        WHERE (entered_at, entered_position) > (roster_floor_at, roster_floor_position)"""
    return [groups, members]
