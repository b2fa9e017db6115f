"""What is stored of the past, in SQL: every piece is found by its key, however long the history is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from projector.domain.membership import Standing
from projector.read_model.blocks import Block
from projector.read_model.evidence import decode_fullness, decode_lives, decode_member, decode_profile, decode_users
from projector.read_model.rows import RosterSnapshot, RosterUsers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from projector.database import Connection
    from projector.domain.fullness import Fullness
    from projector.domain.lives import Moment
    from projector.domain.membership import Member
    from projector.domain.profile import Profile
    from projector.read_model.rows import MemberEvent

_VERSIONS: Final = ("members", "earlier_members")
_BATCH_SIZE: Final = 100
_MARKS: Final = ",".join("?" * _BATCH_SIZE)


def _union(part: str, values: Iterable[object]) -> str:
    """Return one query of several that differ in a name or a number."""
    parts = (f"SELECT * FROM ({part.format(value)}) AS part{number}" for number, value in enumerate(values))
    return " UNION ".join(parts) + " ORDER BY 1 LIMIT ?"


_EVER_OF: Final = _union(
    "SELECT group_id FROM members INDEXED BY members_by_user"
    " WHERE user_id = ? AND standing = {} AND group_id > ? ORDER BY group_id LIMIT ?",
    map(int, Standing),
)
_CHANGES: Final = (
    " UNION ALL ".join(
        f"SELECT at, position, change FROM {table} WHERE group_id = ? AND user_id = ? AND change IS NOT NULL"
        " AND (at, position) < (?, ?)"
        for table in _VERSIONS
    )
    + " UNION ALL SELECT at, position, 'dismissed' FROM dismissals WHERE group_id = ? AND (at, position) < (?, ?)"
    " ORDER BY 1 DESC, 2 DESC LIMIT ?"
)
_AFTER_ALL: Final = (2**63 - 1, 2**63 - 1)


class Past:
    """`Past` over one connection that is inside a read transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def blocks(self, group_id: str) -> list[Block]:
        found = self._connection.execute("SELECT * FROM blocks WHERE group_id = ? ORDER BY number", (group_id,))
        return [Block(*row) for row in found]

    def roster_snapshot(self, group_id: str, version: int) -> RosterSnapshot | None:
        found = self._one(
            "SELECT version, position, lives, member_count FROM roster_states"
            " WHERE group_id = ? AND version <= ? ORDER BY version DESC LIMIT 1",
            (group_id, version),
        )
        return RosterSnapshot(group_id, found[0], found[1], decode_lives(found[2]), found[3]) if found else None

    def roster_users(self, group_id: str, version: int) -> RosterUsers:
        found = self._one(
            "SELECT version, users FROM roster_users WHERE group_id = ? AND version <= ? ORDER BY version DESC LIMIT 1",
            (group_id, version),
        )
        return RosterUsers(group_id, found[0], decode_users(found[1])) if found else RosterUsers(group_id, 0, [])

    def profile_snapshot(self, group_id: str, version: int) -> Profile | None:
        found = self._one("SELECT evidence FROM profile_states WHERE group_id = ? AND version = ?", (group_id, version))
        return decode_profile(found[0]) if found else None

    def fullness_snapshot(self, group_id: str, version: int) -> Fullness | None:
        found = self._one(
            "SELECT evidence FROM fullness_states WHERE group_id = ? AND version = ?", (group_id, version)
        )
        return decode_fullness(found[0]) if found else None

    def members_until(self, group_id: str, user_ids: Sequence[str], position: int) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for table in _VERSIONS:
            wanted = [user_id for user_id in user_ids if user_id not in found]
            for first in range(0, len(wanted), _BATCH_SIZE):
                found |= self._newest(table, group_id, wanted[first : first + _BATCH_SIZE], position)
        return found

    def groups_ever_of(self, user_id: str, after: str, limit: int) -> list[str]:
        found = self._connection.execute(_EVER_OF, (user_id, after, limit) * 3 + (limit,))
        return [group_id for (group_id,) in found]

    def changes(
        self, group_id: str, user_id: str, before: Moment | None, limit: int
    ) -> list[tuple[Moment, MemberEvent]]:
        of_user = (group_id, user_id, *(before or _AFTER_ALL))
        arguments = (*of_user, *of_user, group_id, *(before or _AFTER_ALL), limit)
        return [((at, position), change) for at, position, change in self._connection.execute(_CHANGES, arguments)]

    def knows_member(self, group_id: str, user_id: str) -> bool:
        return self._one("SELECT 1 FROM members WHERE group_id = ? AND user_id = ?", (group_id, user_id)) is not None

    def _newest(self, table: str, group_id: str, user_ids: list[str], position: int) -> dict[str, Member]:
        """Return each user's newest version up to a position."""
        # As many marks as there may be: a statement is prepared once.
        users = [*user_ids, *user_ids[:1] * (_BATCH_SIZE - len(user_ids))]
        newest = self._connection.execute(
            f"SELECT user_id, evidence FROM {table} WHERE group_id = ? AND (user_id, position) IN"
            f" (SELECT user_id, MAX(position) FROM {table} WHERE group_id = ? AND user_id IN ({_MARKS})"
            " AND position <= ? GROUP BY user_id)",
            (group_id, group_id, *users, position),
        )
        return {user_id: decode_member(evidence) for user_id, evidence in newest}

    def _one(self, question: str, arguments: tuple[str | int, ...]) -> Any:
        return self._connection.execute(question, arguments).fetchone()
