"""Notices: numbered changes that no event causes, for those who follow the feeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from projector.clock import now_ms
from projector.database import Connection
from projector.event_store.tables import ANNOUNCED, NOTICES, Transactions

MAX_POSITIONS: Final = 1_000
"""A notice with more positions has none."""

MAX_GROUPS: Final = 1_000
"""If more groups have to be read again at once, everything has to be read again."""

NoticeKind: TypeAlias = Literal["user.forgotten", "group.reset", "history.changed"]

_VERSIONS: Final = "versions"
_SET_ASIDE: Final = "set aside "


class Notice(NamedTuple):
    """A change that no event causes; `at` is in ms since 1970 UTC.

    `user.forgotten` has a pseudonym as its subject, and the positions of the events that were changed, None if they are
    unknown or too many. `group.reset` has a group as its subject, and `history.changed` has none: all state that was
    read before has to be read again.
    """

    number: int
    kind: NoticeKind
    subject: str | None
    positions: Sequence[int] | None
    at: int


class Announcement(NamedTuple):
    """A notice to be numbered."""

    kind: NoticeKind
    subject: str | None = None
    positions: Sequence[int] | None = None


class Notices:
    """The tables `notices` and `announced` beside the events. All methods raise StoreUnavailable."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._has_notices = False

    def newest(self) -> int:
        """Return the number of the newest notice, 0 if there is none."""
        return self._max_number("")

    def newest_history_change(self) -> int:
        """Return the number of the newest notice that all state has to be read again, 0 if there is none."""
        return self._max_number(" WHERE kind = 'history.changed'")

    def after(self, number: int, limit: int) -> list[Notice]:
        """Return up to `limit` notices after a number, in order."""
        with self._transactions.reading() as connection:
            if not self._has_table(connection):
                return []
            rows = connection.execute(
                "SELECT id, kind, subject, positions, at FROM notices WHERE id > ? ORDER BY id LIMIT ?", (number, limit)
            )
            return [
                Notice(row_id, kind, subject, positions and msgspec.json.decode(positions), at)
                for row_id, kind, subject, positions, at in rows
            ]

    def add(self, announcements: Iterable[Announcement]) -> None:
        """Append notices, in this order."""
        with self._transactions.exclusive() as connection:
            _insert(connection, announcements)

    def announce_read_model(self, schema: int, versions: Mapping[str, int], set_aside: Mapping[int, str]) -> None:
        """Append notices of what differs from the read model that was announced last, and remember this one.

        Read models of several schema versions may be live at a time. `versions` are those of its projections, and
        `set_aside` the events set aside, by position, with their groups.
        """
        prefix = f"{schema} "
        current = {f"{prefix}{_VERSIONS}": msgspec.json.encode(versions, order="sorted").decode()}
        current |= {f"{prefix}{_SET_ASIDE}{position}": group_id for position, group_id in set_aside.items()}
        with self._transactions.reading() as connection:
            if _announced(connection, prefix) == current:
                return
        with self._transactions.exclusive() as connection:
            before = _announced(connection, prefix)
            if before:
                _insert(connection, _differences(before, current, prefix))
            elif _announced(connection, ""):
                _insert(connection, [Announcement("history.changed")])
            for name in before.keys() - current.keys():
                connection.execute("DELETE FROM announced WHERE name = ?", (name,))
            connection.upsert(ANNOUNCED, sorted(current.items() - before.items()))

    def _max_number(self, condition: str) -> int:
        with self._transactions.reading() as connection:
            if not self._has_table(connection):
                return 0
            return int(connection.execute(f"SELECT COALESCE(MAX(id), 0) FROM notices{condition}").fetchone()[0])

    def _has_table(self, connection: Connection) -> bool:
        """Return whether there are notices: a store of version 0.1.0 that is only read has no such table."""
        self._has_notices = self._has_notices or connection.has_table(NOTICES.name)
        return self._has_notices


def group_resets(group_ids: Iterable[str]) -> list[Announcement]:
    """Return the notices that these groups have to be read again."""
    distinct = sorted(set(group_ids))
    if len(distinct) > MAX_GROUPS:
        return [Announcement("history.changed")]
    return [Announcement("group.reset", group_id) for group_id in distinct]


def _announced(connection: Connection, prefix: str) -> dict[str, str]:
    rows = connection.execute("SELECT name, value FROM announced")
    return {name: value for name, value in rows if name.startswith(prefix)}


def _differences(before: Mapping[str, str], current: Mapping[str, str], prefix: str) -> list[Announcement]:
    versions = f"{prefix}{_VERSIONS}"
    if before[versions] != current[versions]:
        return [Announcement("history.changed")]
    return group_resets(before[name] for name in before.keys() - current.keys())


def _insert(connection: Connection, announcements: Iterable[Announcement]) -> None:
    for kind, subject, positions in announcements:
        known = positions if positions is not None and len(positions) <= MAX_POSITIONS else None
        connection.execute(
            "INSERT INTO notices (kind, subject, positions, at) VALUES (?, ?, ?, ?)",
            (kind, subject, None if known is None else msgspec.json.encode(known).decode(), now_ms()),
        )
