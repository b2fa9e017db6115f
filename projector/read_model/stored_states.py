"""Stored earlier states, in SQL for both databases: each is looked up by key, whatever the length of the history."""

from collections.abc import Sequence
from typing import Any, Final

from projector.database import Connection
from projector.domain.fullness import Fullness
from projector.domain.lives import Moment
from projector.domain.membership import Member, Standing
from projector.domain.profile import Profile
from projector.read_model.blocks import Block
from projector.read_model.evidence import decode_fullness, decode_lives, decode_member, decode_profile, decode_users
from projector.read_model.rows import MemberEvent, RosterSnapshot, RosterUsers

_BATCH_SIZE: Final = 100
"""Users looked up by one statement."""

_NO_LIMIT: Final = (2**63 - 1, 2**63 - 1)
"""A moment after all others."""

_MEMBER_TABLES: Final = ("members", "earlier_members")

# One page from the index for each standing; the union of all contains the page wanted.
_GROUPS_EVER_OF: Final = (
    " UNION ".join(
        "SELECT * FROM (SELECT group_id FROM members INDEXED BY members_by_user"
        f" WHERE user_id = ? AND standing = {standing:d} AND group_id > ?"
        f" ORDER BY group_id LIMIT ?) AS part{standing:d}"
        for standing in Standing
    )
    + " ORDER BY 1 LIMIT ?"
)
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
        return [Block(*row) for row in rows]

    def roster_snapshot(self, group_id: str, version: int) -> RosterSnapshot | None:
        """Return the newest snapshot of a roster at or before a version of the stream."""
        row = self._row(
            "SELECT version, position, lives, member_count FROM roster_states"
            " WHERE group_id = ? AND version <= ? ORDER BY version DESC LIMIT 1",
            (group_id, version),
        )
        return RosterSnapshot(group_id, row[0], row[1], decode_lives(row[2]), row[3]) if row else None

    def roster_users(self, group_id: str, version: int) -> RosterUsers:
        """Return the newest users stored at or before a version of the stream; if there are none, no users at 0."""
        row = self._row(
            "SELECT version, users FROM roster_users WHERE group_id = ? AND version <= ? ORDER BY version DESC LIMIT 1",
            (group_id, version),
        )
        return RosterUsers(group_id, row[0], decode_users(row[1])) if row else RosterUsers(group_id, 0, [])

    def profile_snapshot(self, group_id: str, version: int) -> Profile | None:
        """Return the profile stored at exactly this version of the stream."""
        row = self._row("SELECT evidence FROM profile_states WHERE group_id = ? AND version = ?", (group_id, version))
        return decode_profile(row[0]) if row else None

    def fullness_snapshot(self, group_id: str, version: int) -> Fullness | None:
        """Return the fullness stored at exactly this version of the stream."""
        row = self._row("SELECT evidence FROM fullness_states WHERE group_id = ? AND version = ?", (group_id, version))
        return decode_fullness(row[0]) if row else None

    def members_until(self, group_id: str, user_ids: Sequence[str], position: int) -> dict[str, Member]:
        """Return the evidence about these users after the event at a position; users without any are left out."""
        evidence: dict[str, Member] = {}
        for table in _MEMBER_TABLES:
            missing = [user_id for user_id in user_ids if user_id not in evidence]
            for start in range(0, len(missing), _BATCH_SIZE):
                evidence |= self._newest(table, group_id, missing[start : start + _BATCH_SIZE], position)
        return evidence

    def groups_ever_of(self, user_id: str, after: str, limit: int) -> list[str]:
        """Return a page of the groups that have events about a user, after a group id, by group id."""
        rows = self._connection.execute(_GROUPS_EVER_OF, (user_id, after, limit) * len(Standing) + (limit,))
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
        return self._row("SELECT 1 FROM members WHERE group_id = ? AND user_id = ?", (group_id, user_id)) is not None

    def _newest(self, table: str, group_id: str, user_ids: list[str], position: int) -> dict[str, Member]:
        """Return the evidence in each user's newest row up to a position."""
        # The last batch is filled with repeated ids, so that the statement is always the same and prepared once.
        padded = [*user_ids, *user_ids[:1] * (_BATCH_SIZE - len(user_ids))]
        rows = self._connection.execute(
            f"SELECT user_id, evidence FROM {table} WHERE group_id = ? AND (user_id, position) IN"
            f" (SELECT user_id, MAX(position) FROM {table}"
            f" WHERE group_id = ? AND user_id IN ({','.join('?' * _BATCH_SIZE)}) AND position <= ? GROUP BY user_id)",
            (group_id, group_id, *padded, position),
        )
        return {user_id: decode_member(evidence) for user_id, evidence in rows}

    def _row(self, query: str, arguments: tuple[str | int, ...]) -> Any:
        return self._connection.execute(query, arguments).fetchone()
