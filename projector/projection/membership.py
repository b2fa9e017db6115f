"""The membership projection: rosters, members, and how many there are; now, and after every event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from projector.domain import lives, membership
from projector.domain.events import GroupCreated, MembersJoined, MembersLeft
from projector.domain.membership import MEMBER, OUT, Member
from projector.read_model.rows import MemberRow, Roster, RosterSnapshot, RosterUsers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from projector.domain.events import Event, Recorded
    from projector.domain.lives import Lives
    from projector.projection.slices import StreamSlice
    from projector.read_model import Tables
    from projector.read_model.rows import Change

_ROSTER_SHARE: Final = 16
"""A roster is stored again after as many events as are a 16th of it: so storing costs each event a few ids."""

_CHANGES: Final[dict[type[Event], Change]] = {GroupCreated: "joined", MembersJoined: "joined", MembersLeft: "left"}
_NOBODY: Final = Member()
_EMPTY: Final = Roster()


class MembershipProjection:
    """See `projector.domain.membership` for the rules."""

    name = "membership"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[StreamSlice]) -> None:
        """Fold the batch into `rosters`, `members`, `earlier_members`, `roster_snapshots` and `roster_users`."""
        by_group: dict[str, list[StreamSlice]] = {}
        for stretch in batch:
            by_group.setdefault(stretch.group_id, []).append(stretch)
        rosters = tables.rosters(by_group)
        known = _known(tables, {group_id: by_group[group_id] for group_id in rosters})
        folds = [_Group(tables, group_id, rosters.get(group_id), known.get(group_id, {})) for group_id in by_group]
        for fold, parts in zip(folds, by_group.values(), strict=True):
            fold.add(parts)
        tables.save_members(row for fold in folds for row in fold.changed())
        tables.save_earlier_members(row for fold in folds for row in fold.earlier)
        tables.save_roster_snapshots(state for fold in folds for state in fold.states)
        tables.save_rosters(
            {
                fold.group_id: fold.roster
                for fold in folds
                if fold.is_heard_of and fold.roster != rosters.get(fold.group_id)
            }
        )


class _Group:
    """One group while events are folded into it: the rows that they are about, and how many stand as members."""

    def __init__(self, tables: Tables, group_id: str, roster: Roster | None, known: dict[str, MemberRow]) -> None:
        self.group_id = group_id
        self.earlier: list[MemberRow] = []
        self.states: list[RosterSnapshot] = []
        self._tables = tables
        self.is_heard_of = self._is_old = roster is not None
        self._lives, self._count = roster or _EMPTY
        self._known = known
        self._rows = dict(known)

    @property
    def roster(self) -> Roster:
        """The group as it is now."""
        return Roster(self._lives, self._count)

    def add(self, parts: Sequence[StreamSlice]) -> None:
        """Fold events in, and store states at the ends of blocks."""
        for part in parts:
            for recorded in part.evidence:
                self._add(recorded)
            self.is_heard_of = self.is_heard_of or bool(part.evidence)
            if part.ends_block:
                self._store_state(part.events[-1])

    def changed(self) -> Iterable[MemberRow]:
        """Return the rows that are not as they were."""
        if not self._known:
            return self._rows.values()
        return (row for user_id, row in self._rows.items() if row is not self._known.get(user_id))

    def _add(self, recorded: Recorded) -> None:
        event = recorded.event
        now = lives.evolve(self._lives, recorded)
        if now is not self._lives and now != self._lives:
            self._live(now)
        for user_id in membership.users(event):
            before = self._rows.get(user_id)
            member = membership.evolve(before.member if before else _NOBODY, recorded)
            stands = membership.standing(member, now)
            if before is not None:
                self.earlier.append(before)
                self._count -= before.standing is MEMBER
            self._count += stands is MEMBER
            self._rows[user_id] = MemberRow(
                self.group_id,
                user_id,
                member,
                stands,
                recorded.position,
                event.occurred_at,
                _CHANGES.get(type(event)),
            )

    def _live(self, now: Lives) -> None:
        """Begin or end a life: where everybody stands is decided again."""
        if self._is_old:
            for row in self._tables.present(self.group_id):
                self._known.setdefault(row.user_id, row)
                self._rows.setdefault(row.user_id, row)
        self._lives, self._count = now, 0
        for user_id, row in self._rows.items():
            stands = membership.standing(row.member, now)
            self._count += stands is MEMBER
            if stands is not row.standing:
                self._rows[user_id] = replace(row, standing=stands)

    def _store_state(self, recorded: Recorded) -> None:
        version = recorded.version
        self.states.append(RosterSnapshot(self.group_id, version, recorded.position, self._lives, self._count))
        last_version, size = self._tables.last_roster_users(self.group_id) or (0, 0)
        if version - last_version < size // _ROSTER_SHARE:
            return
        others = self._tables.present_users(self.group_id) if self._is_old else ()
        users = [user_id for user_id in others if user_id not in self._rows]
        users += [user_id for user_id, row in self._rows.items() if row.standing is not OUT]
        self._tables.save_roster_users(RosterUsers(self.group_id, version, sorted(users)))


def _known(tables: Tables, by_group: Mapping[str, Sequence[StreamSlice]]) -> dict[str, dict[str, MemberRow]]:
    """Return the rows that stretches are about, by group and user: looked up in one go, however many they are."""
    keys = {
        (group_id, user_id)
        for group_id, parts in by_group.items()
        for part in parts
        for one in part.evidence
        for user_id in membership.users(one.event)
    }
    known: dict[str, dict[str, MemberRow]] = {}
    for (group_id, user_id), row in tables.members(keys).items():
        known.setdefault(group_id, {})[user_id] = row
    return known
