"""Tables held in memory while whole streams are folded, and written in one go, in the order of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from projector.domain.membership import Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from projector.domain.fullness import Fullness
    from projector.domain.profile import Profile
    from projector.read_model import Tables
    from projector.read_model.blocks import Block
    from projector.read_model.rows import MemberRow, Roster, RosterSnapshot, RosterUsers, StreamSnapshot

MAX_BUFFERED_MEMBERS: Final = 100_000
"""How many members' rows are held; a group that has more is written early and read back where need be."""


class _Group:
    """What is held of one group."""

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
    """`Tables`, for groups that have no rows in `tables` yet."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._groups: dict[str, _Group] = {}

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        return self._known("roster", group_ids)

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        found, elsewhere = {}, []
        for group_id, user_id in keys:
            group = self._group(group_id)
            if row := group.members.get(user_id):
                found[group_id, user_id] = row
            elif group.is_written_early:
                elsewhere.append((group_id, user_id))
        return found | self._tables.members(elsewhere) if elsewhere else found

    def present(self, group_id: str) -> Iterator[MemberRow]:
        group = self._group(group_id)
        yield from [row for row in group.members.values() if row.standing is not Standing.OUT]
        if group.is_written_early:
            yield from [row for row in self._tables.present(group_id) if row.user_id not in group.members]

    def present_users(self, group_id: str) -> Iterator[str]:
        group = self._group(group_id)
        yield from [row.user_id for row in group.members.values() if row.standing is not Standing.OUT]
        if group.is_written_early:
            yield from [user for user in self._tables.present_users(group_id) if user not in group.members]

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        self._keep("roster", rosters)

    def save_members(self, rows: Iterable[MemberRow]) -> None:
        group_id, members = None, {}
        for row in rows:
            if row.group_id != group_id:
                group_id, members = row.group_id, self._group(row.group_id).members
            members[row.user_id] = row

    def save_earlier_members(self, rows: Iterable[MemberRow]) -> None:
        for row in rows:
            self._group(row.group_id).earlier_members.append(row)

    def save_roster_snapshots(self, snapshots: Iterable[RosterSnapshot]) -> None:
        for state in snapshots:
            self._group(state.group_id).roster_snapshots.append(state)

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        return self._group(group_id).last_roster_users

    def save_roster_users(self, users: RosterUsers) -> None:
        group = self._group(users.group_id)
        group.roster_users.append(users)
        group.last_roster_users = users.version, len(users.users)

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        return self._known("profile", group_ids)

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None:
        self._keep("profile", profiles)

    def save_profile_snapshots(self, snapshots: Iterable[StreamSnapshot[Profile]]) -> None:
        for state in snapshots:
            self._group(state.group_id).profile_snapshots.append(state)

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        return self._known("fullness", group_ids)

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        self._keep("fullness", fullness)

    def save_fullness_snapshots(self, snapshots: Iterable[StreamSnapshot[Fullness]]) -> None:
        for state in snapshots:
            self._group(state.group_id).fullness_snapshots.append(state)

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Block]:
        return {
            (group_id, number): block
            for group_id, number in keys
            if (block := self._group(group_id).blocks.get(number))
        }

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._group(block.group_id).blocks[block.number] = block

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        for dismissal in dismissals:
            self._group(dismissal[0]).dismissals.append(dismissal)

    def write(self, *, but: str | None = None) -> None:
        """Write what is held and let go of it; of the group that is not complete yet, only too many members."""
        complete = {group_id: group for group_id, group in self._groups.items() if group_id != but}
        self._write_members(complete.values())
        self._write_groups(complete)
        if but is not None and len((incomplete := self._group(but)).members) > MAX_BUFFERED_MEMBERS:
            self._write_members([incomplete])
            incomplete.members, incomplete.earlier_members, incomplete.roster_users = {}, [], []
            incomplete.is_written_early = True
        for group_id in complete:
            del self._groups[group_id]

    def drop(self) -> set[str]:
        """Let go of everything unwritten, and return the groups it was of."""
        lost = set(self._groups)
        self._groups.clear()
        return lost

    def _write_members(self, groups: Collection[_Group]) -> None:
        self._tables.save_members(group.members[user_id] for group in groups for user_id in sorted(group.members))
        self._tables.save_earlier_members(row for group in groups for row in group.earlier_members)
        for users in (users for group in groups for users in group.roster_users):
            self._tables.save_roster_users(users)

    def _write_groups(self, groups: Mapping[str, _Group]) -> None:
        self._tables.save_rosters({key: group.roster for key, group in groups.items() if group.roster is not None})
        self._tables.save_profiles({key: group.profile for key, group in groups.items() if group.profile is not None})
        self._tables.save_fullness({key: group.fullness for key, group in groups.items() if group.fullness is not None})
        self._tables.save_roster_snapshots(state for group in groups.values() for state in group.roster_snapshots)
        self._tables.save_profile_snapshots(state for group in groups.values() for state in group.profile_snapshots)
        self._tables.save_fullness_snapshots(state for group in groups.values() for state in group.fullness_snapshots)
        self._tables.save_blocks(block for group in groups.values() for block in group.blocks.values())
        self._tables.save_dismissals(one for group in groups.values() for one in group.dismissals)

    def _group(self, group_id: str) -> _Group:
        if (group := self._groups.get(group_id)) is None:
            group = self._groups[group_id] = _Group()
        return group

    def _known(self, what: str, group_ids: Iterable[str]) -> dict[str, Any]:
        return {
            group_id: known for group_id in group_ids if (known := getattr(self._group(group_id), what)) is not None
        }

    def _keep(self, what: str, by_group: Mapping[str, Any]) -> None:
        for group_id, known in by_group.items():
            setattr(self._group(group_id), what, known)
