"""Tables in memory while whole streams are folded; they are written to the database in the order of their keys."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final

from projector.domain.lives import Moment
from projector.domain.membership import is_present
from projector.domain.profile import Profile
from projector.read_model import Tables
from projector.read_model.blocks import Block
from projector.read_model.rows import GroupRow, GroupSnapshot, MemberVersion, RosterUsers

MAX_BUFFERED_MEMBERS: Final = 100_000
"""Members of one group in memory. Rows of a larger group are written early, and read back when needed."""

_user_and_position: Final = itemgetter(1, 2)


class _Group:
    """The unwritten rows of one group; `is_written_early` if the database has other rows of its members."""

    def __init__(self) -> None:
        self.row: GroupRow | None = None
        self.texts: Profile | None = None
        self.members: dict[str, MemberVersion] = {}
        self.earlier: list[MemberVersion] = []
        self.snapshots: list[GroupSnapshot] = []
        self.blocks: dict[int, Block] = {}
        self.dismissals: list[tuple[str, int, int]] = []
        self.roster_users: list[RosterUsers] = []
        self.last_roster_users: tuple[int, int] | None = None
        self.is_written_early = False

    def present(self, since: Moment) -> list[str]:
        return [
            user_id
            for user_id, version in self.members.items()
            if is_present(version.member) and version.member.entered > since
        ]


class BufferedTables:
    """`Tables` for groups that have no rows in `tables` yet."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._groups: defaultdict[str, _Group] = defaultdict(_Group)

    def groups(self, group_ids: Iterable[str]) -> dict[str, GroupRow]:
        return {key: row for key in group_ids if (row := self._groups[key].row) is not None}

    def save_groups(self, groups: Iterable[GroupRow]) -> None:
        for row in groups:
            self._groups[row.group_id].row = row

    def texts(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        return {key: texts for key in group_ids if (texts := self._groups[key].texts) is not None}

    def save_texts(self, texts: Mapping[str, Profile]) -> None:
        for group_id, of_group in texts.items():
            self._groups[group_id].texts = of_group

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberVersion]:
        members, written = {}, []
        for group_id, user_id in keys:
            group = self._groups[group_id]
            if version := group.members.get(user_id):
                members[group_id, user_id] = version
            elif group.is_written_early:
                written.append((group_id, user_id))
        return members | self._tables.members(written) if written else members

    def count_present(self, group_id: str, since: Moment) -> int:
        return sum(1 for _ in self.present_users(group_id, since))

    def present_users(self, group_id: str, since: Moment) -> Iterator[str]:
        group = self._groups[group_id]
        yield from group.present(since)
        if group.is_written_early:
            yield from [user for user in self._tables.present_users(group_id, since) if user not in group.members]

    def save_present(self, newest: Iterable[MemberVersion]) -> None:
        group_id, members = None, dict[str, MemberVersion]()
        for version in newest:
            if version.group_id != group_id:
                group_id, members = version.group_id, self._groups[version.group_id].members
            members[version.user_id] = version

    def save_absent(self, newest: Iterable[MemberVersion]) -> None:
        self.save_present(newest)

    def delete_present(self, keys: Iterable[tuple[str, str]]) -> None:
        pass  # absent ones take their place

    def save_earlier(self, versions: Iterable[MemberVersion]) -> None:
        for version in versions:
            self._groups[version.group_id].earlier.append(version)

    def last_roster_users(self, group_id: str) -> tuple[int, int] | None:
        return self._groups[group_id].last_roster_users

    def save_roster_users(self, users: RosterUsers) -> None:
        group = self._groups[users.group_id]
        group.roster_users.append(users)
        group.last_roster_users = users.version, len(users.users)

    def save_snapshots(self, snapshots: Iterable[tuple[str, GroupSnapshot]]) -> None:
        for group_id, snapshot in snapshots:
            self._groups[group_id].snapshots.append(snapshot)

    def blocks(self, keys: Iterable[tuple[str, int]]) -> dict[str, Block]:
        return {group_id: block for group_id, number in keys if (block := self._groups[group_id].blocks.get(number))}

    def delete_blocks(self, keys: Iterable[tuple[str, int]]) -> None:
        for group_id, number in keys:
            self._groups[group_id].blocks.pop(number, None)

    def save_blocks(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._groups[block.group_id].blocks[block.number] = block

    def save_dismissals(self, dismissals: Iterable[tuple[str, int, int]]) -> None:
        for dismissal in dismissals:
            self._groups[dismissal[0]].dismissals.append(dismissal)

    def write(self, *, incomplete: str | None = None) -> None:
        """Write and release all groups but the incomplete one; of that one, its members, if there are too many."""
        complete = {group_id: group for group_id, group in self._groups.items() if group_id != incomplete}
        self._write_members(complete)
        self._write_groups(complete)
        if incomplete is not None and len((group := self._groups[incomplete]).members) > MAX_BUFFERED_MEMBERS:
            self._write_members({incomplete: group})
            group.members, group.earlier, group.roster_users = {}, [], []
            group.is_written_early = True
        for group_id in complete:
            del self._groups[group_id]

    def discard(self) -> set[str]:
        """Release everything unwritten, and return the ids of its groups."""
        group_ids = set(self._groups)
        self._groups.clear()
        return group_ids

    def _write_members(self, by_id: Mapping[str, _Group]) -> None:
        written = [(group_id, group.members) for group_id, group in by_id.items() if group.is_written_early]
        self._tables.delete_present((group_id, user_id) for group_id, members in written for user_id in members)
        present, others = list[MemberVersion](), list[MemberVersion]()
        for group in by_id.values():
            absent: list[MemberVersion] = []
            for _, version in sorted(group.members.items()):
                (present if is_present(version.member) else absent).append(version)
            others += sorted([*absent, *group.earlier], key=_user_and_position)
        self._tables.save_present(present)
        self._tables.save_earlier(others)
        for users in (users for group in by_id.values() for users in group.roster_users):
            self._tables.save_roster_users(users)

    def _write_groups(self, by_id: Mapping[str, _Group]) -> None:
        groups: Collection[_Group] = by_id.values()
        self._tables.save_groups(group.row for group in groups if group.row is not None)
        self._tables.save_texts({key: group.texts for key, group in by_id.items() if group.texts is not None})
        self._tables.save_snapshots((key, snapshot) for key, group in by_id.items() for snapshot in group.snapshots)
        self._tables.save_blocks(block for group in groups for block in group.blocks.values())
        self._tables.save_dismissals(dismissal for group in groups for dismissal in group.dismissals)
