"""Tables in memory while whole streams are folded; they are written to the database in the order of their keys."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from projector.domain.fullness import Fullness
from projector.domain.membership import Standing
from projector.domain.profile import Profile
from projector.read_model import Tables
from projector.read_model.blocks import Block
from projector.read_model.rows import MemberRow, Roster, RosterSnapshot, RosterUsers, StreamSnapshot

MAX_BUFFERED_MEMBERS: Final = 100_000
"""Members of one group in memory. Rows of a larger group are written early, and read back when needed."""


class _Group:
    """The unwritten rows of one group; `is_written_early` if the database has other rows of its members."""

    def __init__(self) -> None:
        self.roster: Roster | None = None
        self.profile: Profile | None = None
        self.fullness: Fullness | None = None
        self.members: dict[str, MemberRow] = {}
        self.earlier_members: list[MemberRow] = []
        self.roster_snapshots: list[RosterSnapshot] = []
        self.profile_snapshots: list[StreamSnapshot[Profile]] = []
        self.fullness_snapshots: list[StreamSnapshot[Fullness]] = []
        self.blocks: dict[int, Block] = {}
        self.dismissals: list[tuple[str, int, int]] = []
        self.roster_users: list[RosterUsers] = []
        self.last_roster_users: tuple[int, int] | None = None
        self.is_written_early = False


class BufferedTables:
    """`Tables` for groups that have no rows in `tables` yet."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._groups: defaultdict[str, _Group] = defaultdict(_Group)

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        return {key: roster for key in group_ids if (roster := self._groups[key].roster) is not None}

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        rows, written = {}, []
        for group_id, user_id in keys:
            group = self._groups[group_id]
            if row := group.members.get(user_id):
                rows[group_id, user_id] = row
            elif group.is_written_early:
                written.append((group_id, user_id))
        return rows | self._tables.members(written) if written else rows

    def present(self, group_id: str) -> Iterator[MemberRow]:
        group = self._groups[group_id]
        yield from [row for row in group.members.values() if row.standing is not Standing.OUT]
        if group.is_written_early:
            yield from [row for row in self._tables.present(group_id) if row.user_id not in group.members]

    def present_users(self, group_id: str) -> Iterator[str]:
        group = self._groups[group_id]
        yield from [row.user_id for row in group.members.values() if row.standing is not Standing.OUT]
        if group.is_written_early:
            yield from [user for user in self._tables.present_users(group_id) if user not in group.members]

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        for group_id, roster in rosters.items():
            self._groups[group_id].roster = roster

    def save_members(self, rows: Iterable[MemberRow]) -> None:
        group_id, members = None, {}
        for row in rows:
            if row.group_id != group_id:
                group_id, members = row.group_id, self._groups[row.group_id].members
            members[row.user_id] = row

    def save_earlier_members(self, rows: Iterable[MemberRow]) -> None:
        for row in rows:
            self._groups[row.group_id].earlier_members.append(row)

    def save_roster_snapshots(self, snapshots: Iterable[RosterSnapshot]) -> None:
        for snapshot in snapshots:
            self._groups[snapshot.group_id].roster_snapshots.append(snapshot)

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        return self._groups[group_id].last_roster_users

    def save_roster_users(self, users: RosterUsers) -> None:
        group = self._groups[users.group_id]
        group.roster_users.append(users)
        group.last_roster_users = users.version, len(users.users)

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        return {key: profile for key in group_ids if (profile := self._groups[key].profile) is not None}

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None:
        for group_id, profile in profiles.items():
            self._groups[group_id].profile = profile

    def save_profile_snapshots(self, snapshots: Iterable[StreamSnapshot[Profile]]) -> None:
        for snapshot in snapshots:
            self._groups[snapshot.group_id].profile_snapshots.append(snapshot)

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        return {key: fullness for key in group_ids if (fullness := self._groups[key].fullness) is not None}

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        for group_id, of_group in fullness.items():
            self._groups[group_id].fullness = of_group

    def save_fullness_snapshots(self, snapshots: Iterable[StreamSnapshot[Fullness]]) -> None:
        for snapshot in snapshots:
            self._groups[snapshot.group_id].fullness_snapshots.append(snapshot)

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Block]:
        return {
            (group_id, number): block
            for group_id, number in keys
            if (block := self._groups[group_id].blocks.get(number))
        }

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._groups[block.group_id].blocks[block.number] = block

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        for dismissal in dismissals:
            self._groups[dismissal[0]].dismissals.append(dismissal)

    def write(self, *, incomplete: str | None = None) -> None:
        """Write and release all groups but the incomplete one; of that one, its members, if there are too many."""
        complete = {group_id: group for group_id, group in self._groups.items() if group_id != incomplete}
        self._write_members(complete.values())
        self._write_groups(complete)
        if incomplete is not None and len((group := self._groups[incomplete]).members) > MAX_BUFFERED_MEMBERS:
            self._write_members([group])
            group.members, group.earlier_members, group.roster_users = {}, [], []
            group.is_written_early = True
        for group_id in complete:
            del self._groups[group_id]

    def discard(self) -> set[str]:
        """Release everything unwritten, and return the ids of its groups."""
        group_ids = set(self._groups)
        self._groups.clear()
        return group_ids

    def _write_members(self, groups: Collection[_Group]) -> None:
        self._tables.save_members(group.members[user_id] for group in groups for user_id in sorted(group.members))
        self._tables.save_earlier_members(row for group in groups for row in group.earlier_members)
        for users in (users for group in groups for users in group.roster_users):
            self._tables.save_roster_users(users)

    def _write_groups(self, by_id: Mapping[str, _Group]) -> None:
        groups = by_id.values()
        self._tables.save_rosters({key: group.roster for key, group in by_id.items() if group.roster is not None})
        self._tables.save_profiles({key: group.profile for key, group in by_id.items() if group.profile is not None})
        self._tables.save_fullness({key: group.fullness for key, group in by_id.items() if group.fullness is not None})
        self._tables.save_roster_snapshots(snapshot for group in groups for snapshot in group.roster_snapshots)
        self._tables.save_profile_snapshots(snapshot for group in groups for snapshot in group.profile_snapshots)
        self._tables.save_fullness_snapshots(snapshot for group in groups for snapshot in group.fullness_snapshots)
        self._tables.save_blocks(block for group in groups for block in group.blocks.values())
        self._tables.save_dismissals(dismissal for group in groups for dismissal in group.dismissals)
