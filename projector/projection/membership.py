"""The membership projection: rosters, members and member counts, now and after every event."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from projector.domain import lives, membership
from projector.domain.events import Event, GroupCreated, MembersJoined, MembersLeft, Recorded
from projector.domain.lives import Lives
from projector.domain.membership import MEMBER, OUT, Member
from projector.projection.slices import StreamSlice
from projector.read_model import Tables
from projector.read_model.rows import Change, MemberRow, Roster, RosterSnapshot, RosterUsers

_ROSTER_SHARE: Final = 16
"""The users of a roster are stored again after a 16th as many events, so that each event costs a few ids."""

_CHANGES: Final[dict[type[Event], Change]] = {GroupCreated: "joined", MembersJoined: "joined", MembersLeft: "left"}
_NO_EVIDENCE: Final = Member()
_NEW: Final = Roster()


class MembershipProjection:
    """Fills `rosters`, `members`, `earlier_members`, `roster_states` and `roster_users`."""

    name = "membership"
    version = 2

    def apply(self, tables: Tables, slices: Sequence[StreamSlice]) -> None:
        by_group: dict[str, list[StreamSlice]] = {}
        for piece in slices:
            by_group.setdefault(piece.group_id, []).append(piece)
        rosters = tables.rosters(by_group)
        rows = _stored_rows(tables, {group_id: by_group[group_id] for group_id in rosters})
        folds = [_GroupFold(tables, group_id, rosters.get(group_id), rows.get(group_id, {})) for group_id in by_group]
        for fold, pieces in zip(folds, by_group.values(), strict=True):
            fold.add(pieces)
        tables.save_members(row for fold in folds for row in fold.changed_rows())
        tables.save_earlier_members(row for fold in folds for row in fold.earlier_rows)
        tables.save_roster_snapshots(snapshot for fold in folds for snapshot in fold.snapshots)
        changed = [fold for fold in folds if fold.is_known and fold.roster != rosters.get(fold.group_id)]
        tables.save_rosters({fold.group_id: fold.roster for fold in changed})


class _GroupFold:
    """Folds events into one group: its roster, and the rows of the users mentioned."""

    def __init__(self, tables: Tables, group_id: str, roster: Roster | None, stored: dict[str, MemberRow]) -> None:
        self.group_id = group_id
        self.earlier_rows: list[MemberRow] = []
        self.snapshots: list[RosterSnapshot] = []
        self.is_known = self._was_known = roster is not None
        self._tables = tables
        self._lives, self._member_count = roster or _NEW
        self._stored = stored
        self._rows = dict(stored)

    @property
    def roster(self) -> Roster:
        return Roster(self._lives, self._member_count)

    def add(self, slices: Sequence[StreamSlice]) -> None:
        """Fold the events, and take a snapshot at the end of each block."""
        for piece in slices:
            for recorded in piece.evidence:
                self._add(recorded)
            self.is_known = self.is_known or bool(piece.evidence)
            if piece.ends_block:
                self._take_snapshot(piece.events[-1])

    def changed_rows(self) -> Iterable[MemberRow]:
        if not self._stored:
            return self._rows.values()
        return (row for user_id, row in self._rows.items() if row is not self._stored.get(user_id))

    def _add(self, recorded: Recorded) -> None:
        event = recorded.event
        now = lives.evolve(self._lives, recorded)
        if now is not self._lives and now != self._lives:
            self._change_lives(now)
        for user_id in membership.users(event):
            before = self._rows.get(user_id)
            member = membership.evolve(before.member if before else _NO_EVIDENCE, recorded)
            standing = membership.standing(member, now)
            if before is not None:
                self.earlier_rows.append(before)
                self._member_count -= before.standing is MEMBER
            self._member_count += standing is MEMBER
            self._rows[user_id] = MemberRow(
                self.group_id,
                user_id,
                member,
                standing,
                recorded.position,
                event.occurred_at,
                _CHANGES.get(type(event)),
            )

    def _change_lives(self, now: Lives) -> None:
        """Decide the standing of every user again."""
        if self._was_known:
            for row in self._tables.present(self.group_id):
                self._stored.setdefault(row.user_id, row)
                self._rows.setdefault(row.user_id, row)
        self._lives, self._member_count = now, 0
        for user_id, row in self._rows.items():
            standing = membership.standing(row.member, now)
            self._member_count += standing is MEMBER
            if standing is not row.standing:
                self._rows[user_id] = replace(row, standing=standing)

    def _take_snapshot(self, recorded: Recorded) -> None:
        version = recorded.version
        self.snapshots.append(
            RosterSnapshot(self.group_id, version, recorded.position, self._lives, self._member_count)
        )
        last_version, size = self._tables.last_roster_users(self.group_id) or (0, 0)
        if version - last_version < size // _ROSTER_SHARE:
            return
        stored = self._tables.present_users(self.group_id) if self._was_known else ()
        users = [user_id for user_id in stored if user_id not in self._rows]
        users += [user_id for user_id, row in self._rows.items() if row.standing is not OUT]
        self._tables.save_roster_users(RosterUsers(self.group_id, version, sorted(users)))


def _stored_rows(tables: Tables, by_group: Mapping[str, Sequence[StreamSlice]]) -> dict[str, dict[str, MemberRow]]:
    """Return the rows of the users mentioned, by group and user, read in one go."""
    keys = {
        (group_id, user_id)
        for group_id, slices in by_group.items()
        for piece in slices
        for recorded in piece.evidence
        for user_id in membership.users(recorded.event)
    }
    rows: dict[str, dict[str, MemberRow]] = {}
    for (group_id, user_id), row in tables.members(keys).items():
        rows.setdefault(group_id, {})[user_id] = row
    return rows
