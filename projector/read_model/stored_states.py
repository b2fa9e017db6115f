"""Stored earlier states, in SQL for both databases: each is looked up by key, whatever the length of the history."""

from collections.abc import Sequence
from typing import Any, Final

from projector.database import Connection
from projector.domain.lives import Moment
from projector.domain.membership import Member
from projector.read_model.blocks import Block
from projector.read_model.evidence import decode_group, decode_member, decode_snapshot, decode_users
from projector.read_model.rows import GroupSnapshot, MemberEvent, RosterUsers
from projector.read_model.sql_tables import PRESENT_COLUMNS, present_version

_BATCH_SIZE: Final = 100
"""Users looked up by one statement."""

_ONE_BATCH: Final = ", ".join("?" * _BATCH_SIZE)
_NO_LIMIT: Final = (2**63 - 1, 2**63 - 1)
"""A moment after all others."""

# A page from each index; the union contains the page wanted.
_GROUPS_EVER_OF: Final = (
    "SELECT * FROM (SELECT group_id FROM members INDEXED BY members_by_user"
    " WHERE user_id = ? AND group_id > ? ORDER BY group_id LIMIT ?) AS part1"
    " UNION SELECT * FROM (SELECT group_id FROM member_versions INDEXED BY member_versions_by_user"
    " WHERE user_id = ? AND is_first = 1 AND group_id > ? ORDER BY group_id LIMIT ?) AS part2"
    " ORDER BY 1 LIMIT ?"
)
_MEMBER_TABLES: Final = ("members", "member_versions")
_CHANGES: Final = (
    " UNION ALL ".join(
        f"SELECT at, position, change FROM {table} WHERE group_id = ? AND user_id = ? AND change IS NOT NULL"
        " AND (at, position) < (?, ?)"
        for table in _MEMBER_TABLES
    )
    + " UNION ALL SELECT at, position, 'dismissed' FROM dismissals WHERE group_id = ? AND (at, position) < (?, ?)"
    " ORDER BY 1 DESC, 2 DESC LIMIT ?"
)


class StoredStates:
    """The states that projections have stored at the ends of blocks, and earlier versions of members."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def blocks(self, group_id: str) -> list[Block]:
        """Return the blocks of a group's stream, in order."""
        rows = self._connection.execute("SELECT * FROM blocks WHERE group_id = ? ORDER BY number", (group_id,))
        complete = [Block(*row) for row in rows]
        row = self._row("SELECT evidence FROM groups WHERE group_id = ?", (group_id,))
        if row is None:
            return complete
        newest = Block(group_id, *decode_group(row[0]).block)
        return [*(block for block in complete if block.number < newest.number), newest]

    def snapshot(self, group_id: str, version: int) -> GroupSnapshot:
        """Return the newest snapshot of a group at or before a version of the stream; if there is none, one at 0."""
        row = self._row(
            "SELECT evidence FROM group_snapshots WHERE group_id = ? AND version <= ? ORDER BY version DESC LIMIT 1",
            (group_id, version),
        )
        return decode_snapshot(row[0]) if row else GroupSnapshot()

    def roster_users(self, group_id: str, version: int) -> RosterUsers:
        """Return the newest users stored at or before a version of the stream; if there are none, no users at 0."""
        row = self._row(
            "SELECT version, users FROM roster_users WHERE group_id = ? AND version <= ? ORDER BY version DESC LIMIT 1",
            (group_id, version),
        )
        return RosterUsers(group_id, row[0], decode_users(row[1])) if row else RosterUsers(group_id, 0, [])

    def members_until(self, group_id: str, user_ids: Sequence[str], position: int) -> dict[str, Member]:
        """Return the evidence about these users after the event at a position; users without any are left out."""
        evidence: dict[str, Member] = {}
        for start in range(0, len(user_ids), _BATCH_SIZE):
            users = user_ids[start : start + _BATCH_SIZE]
            present = self._present(group_id, users, position)
            evidence |= present
            if absent := [user_id for user_id in users if user_id not in present]:
                evidence |= self._newest(group_id, absent, position)
        return evidence

    def groups_ever_of(self, user_id: str, after: str, limit: int) -> list[str]:
        """Return a page of the groups that have events about a user, after a group id, by group id."""
        rows = self._connection.execute(_GROUPS_EVER_OF, (user_id, after, limit) * 2 + (limit,))
        return [group_id for (group_id,) in rows]

    def changes(
        self, group_id: str, user_id: str, before: Moment | None, limit: int
    ) -> list[tuple[Moment, MemberEvent]]:
        """Return a page of a user's joins and exits and the group's dismissals before a moment, newest first."""
        moment = before or _NO_LIMIT
        of_user, of_group = (group_id, user_id, *moment), (group_id, *moment)
        rows = self._connection.execute(_CHANGES, (*of_user, *of_user, *of_group, limit))
        return [((at, position), change) for at, position, change in rows]

    def knows_member(self, group_id: str, user_id: str) -> bool:
        """Return whether the group has events about the user."""
        return any(
            self._row(f"SELECT 1 FROM {table} WHERE group_id = ? AND user_id = ? LIMIT 1", (group_id, user_id))
            for table in _MEMBER_TABLES
        )

    def _present(self, group_id: str, user_ids: Sequence[str], position: int) -> dict[str, Member]:
        """Return the evidence about the users who are present, and of whom no event follows a position."""
        rows = self._connection.execute(
            f"SELECT {PRESENT_COLUMNS} FROM members WHERE group_id = ? AND user_id IN ({_ONE_BATCH}) AND position <= ?",
            (group_id, *_padded(user_ids), position),
        )
        return {version.user_id: version.member for version in map(present_version, rows)}

    def _newest(self, group_id: str, user_ids: Sequence[str], position: int) -> dict[str, Member]:
        """Return the evidence in each user's newest version up to a position, without those of users present."""
        rows = self._connection.execute(
            "SELECT user_id, evidence FROM member_versions WHERE group_id = ? AND (user_id, position) IN"
            " (SELECT user_id, MAX(position) FROM member_versions"
            f" WHERE group_id = ? AND user_id IN ({_ONE_BATCH}) AND position <= ? GROUP BY user_id)",
            (group_id, group_id, *_padded(user_ids), position),
        )
        return {user_id: decode_member(evidence) for user_id, evidence in rows}

    def _row(self, query: str, arguments: tuple[str | int, ...]) -> Any:
        return self._connection.execute(query, arguments).fetchone()


def _padded(user_ids: Sequence[str]) -> list[str]:
    """Return a full batch, with repeated ids, so that the statement is always the same and prepared once."""
    return [*user_ids, *[user_ids[0]] * (_BATCH_SIZE - len(user_ids))]
