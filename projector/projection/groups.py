"""The projection of groups: profiles, rosters, fullness and member counts, now and at the ends of blocks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from projector.domain import fullness, membership, profile
from projector.domain.events import (
    Event,
    GroupCreated,
    GroupDismissed,
    GroupObservedAbsent,
    MembersJoined,
    MembersLeft,
    MembersObserved,
    MembersObservedAbsent,
    Recorded,
)
from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER
from projector.domain.membership import MEMBER, Member
from projector.domain.profile import Profile
from projector.projection.slices import StreamSlice
from projector.read_model import Tables
from projector.read_model.blocks import Block
from projector.read_model.rows import Change, GroupRow, GroupSnapshot, MemberVersion, RosterUsers

_ROSTER_SHARE: Final = 16
"""The users of a roster are stored again after a 16th as many events, so that each event costs a few ids."""

_CHANGES: Final[dict[type[Event], Change]] = {
    GroupCreated: "joined",
    MembersJoined: "joined",
    MembersLeft: "left",
    MembersObserved: "observed_member",
    MembersObservedAbsent: "observed_absent",
}
_NO_EVIDENCE: Final = Member()
_NO_PROFILE: Final = Profile()
_NO_FULLNESS: Final = Fullness()


class GroupsProjection:
    """Fills all tables."""

    name = "groups"
    version = 1

    def apply(self, tables: Tables, slices: Sequence[StreamSlice]) -> None:
        by_group: dict[str, list[StreamSlice]] = {}
        for piece in slices:
            by_group.setdefault(piece.group_id, []).append(piece)
        folds = _begin(tables, by_group)
        for fold, pieces in zip(folds, by_group.values(), strict=True):
            fold.add(pieces)
        tables.save_groups(fold.row() for fold in folds if fold.is_known)
        tables.save_texts({fold.group_id: texts for fold in folds if (texts := fold.changed_texts()) is not None})
        members = _ChangedMembers()
        for fold in folds:
            fold.add_changed_to(members)
        tables.delete_present(members.gone)
        tables.save_present(members.present)
        tables.save_absent(members.absent)
        tables.save_earlier(version for fold in folds for version in fold.earlier)
        tables.save_snapshots((fold.group_id, snapshot) for fold in folds for snapshot in fold.snapshots)
        tables.delete_blocks(key for fold in folds for key in fold.former_blocks())
        tables.save_blocks(block for fold in folds for block in fold.complete_blocks())
        tables.save_dismissals(dismissal for fold in folds for dismissal in fold.dismissals)


def _begin(tables: Tables, by_group: Mapping[str, Sequence[StreamSlice]]) -> list["_GroupFold"]:
    """Look up all that the events of these groups change, with a statement for each table."""
    rows = tables.groups(by_group)
    with_texts = [group_id for group_id in rows if any(_needs_texts(piece) for piece in by_group[group_id])]
    texts: dict[str, Profile | None] = {**dict.fromkeys(with_texts, _NO_PROFILE), **tables.texts(with_texts)}
    members: dict[str, dict[str, MemberVersion]] = {}
    for (group_id, user_id), version in tables.members(_mentioned(rows, by_group)).items():
        members.setdefault(group_id, {})[user_id] = version
    unknown = [pieces[0] for group_id, pieces in by_group.items() if group_id not in rows]
    begun = tables.blocks((piece.group_id, piece.block) for piece in unknown if not piece.begins_block)
    return [
        _GroupFold(
            tables,
            group_id,
            rows.get(group_id),
            texts.get(group_id),
            members.get(group_id, {}),
            begun.get(group_id),
        )
        for group_id in by_group
    ]


def _needs_texts(piece: StreamSlice) -> bool:
    return piece.ends_block or any(profile.concerns_texts(recorded.event) for recorded in piece.evidence)


def _mentioned(group_ids: Iterable[str], by_group: Mapping[str, Sequence[StreamSlice]]) -> set[tuple[str, str]]:
    """Return the users of whose evidence the fold may need the newest, with their groups."""
    keys = set()
    for group_id in group_ids:
        for piece in by_group[group_id]:
            for recorded in piece.evidence:
                keys.update([(group_id, user_id) for user_id in membership.users(recorded.event)])
                if owner := getattr(recorded.event, "owner", None):
                    keys.add((group_id, owner))
    return keys


class _ChangedMembers:
    """The newest versions of the users who are present and of those who are not, and the keys of who has gone."""

    def __init__(self) -> None:
        self.present: list[MemberVersion] = []
        self.absent: list[MemberVersion] = []
        self.gone: list[tuple[str, str]] = []


class _GroupFold:
    """Folds events into one group."""

    def __init__(
        self,
        tables: Tables,
        group_id: str,
        stored: GroupRow | None,
        texts: Profile | None,
        members: dict[str, MemberVersion],
        block: Block | None,
    ) -> None:
        self.group_id = group_id
        self.earlier: list[MemberVersion] = []
        self.snapshots: list[GroupSnapshot] = []
        self.dismissals: list[tuple[str, int, int]] = []
        self._stored_texts = texts
        self._tables = tables
        self._stored = stored
        self._stored_members = members
        self._members = dict(members)
        self._begun_block = block
        self._blocks = [block] if block else []
        self._profile, self._fullness, self._member_count = _NO_PROFILE, _NO_FULLNESS, 0
        if stored:
            self._profile = stored.profile if texts is None else profile.whole(stored.profile, texts)
            self._fullness, self._member_count = stored.fullness, stored.member_count
            self._blocks = [stored.block]

    @property
    def is_known(self) -> bool:
        return self._profile.position > 0

    def row(self) -> GroupRow:
        known = profile.brief(self._profile)
        return GroupRow(
            self.group_id, known, self._fullness, self._member_count, self._owner_exited(), self._blocks[-1]
        )

    def add(self, slices: Sequence[StreamSlice]) -> None:
        """Fold the events, and take a snapshot at the end of each block."""
        for piece in slices:
            for recorded in piece.evidence:
                self._add(recorded)
            self._extend_blocks(piece)
            if piece.ends_block:
                self._take_snapshot(piece.events[-1])

    def changed_texts(self) -> Profile | None:
        """Return the texts of the profile if they have changed, or are the first."""
        if not self.is_known:
            return None
        if self._stored and self._stored_texts is None:
            return None  # they were not needed
        texts = profile.texts(self._profile)
        return texts if self._stored is None or texts != self._stored_texts else None

    def add_changed_to(self, changed: _ChangedMembers) -> None:
        for user_id, version in self._members.items():
            stored = self._stored_members.get(user_id)
            if version is stored:
                continue
            if membership.is_present(version.member):
                changed.present.append(version)
            else:
                changed.absent.append(version)
                if stored is not None and membership.is_present(stored.member):
                    changed.gone.append((self.group_id, user_id))

    def complete_blocks(self) -> Iterable[Block]:
        """Yield the blocks that are complete; and, of a group of which nothing is known, the newest."""
        return self._blocks if not self.is_known else [block for block in self._blocks if block.is_complete]

    def former_blocks(self) -> Iterable[tuple[str, int]]:
        """Yield the block that was stored while nothing was known, and belongs to the group's row now."""
        if self._begun_block and self.is_known:
            yield self.group_id, self._begun_block.number

    def _add(self, recorded: Recorded) -> None:
        event, lives = recorded.event, self._profile.lives
        self._profile = profile.evolve(self._profile, recorded)
        if fullness.concerns_fullness(event):
            self._fullness = fullness.evolve(self._fullness, recorded)
        if isinstance(event, GroupDismissed | GroupObservedAbsent):
            self.dismissals.append((self.group_id, event.occurred_at, recorded.position))
        for user_id in membership.users(event):
            self._add_to_member(user_id, recorded)
        if self._profile.lives is not lives and self._profile.lives != lives:
            self._member_count = self._count_members()

    def _add_to_member(self, user_id: str, recorded: Recorded) -> None:
        lives, before = self._profile.lives, self._members.get(user_id)
        member = membership.evolve(user_id, before.member if before else _NO_EVIDENCE, recorded)
        if before is not None:
            self._member_count -= membership.standing(before.member, lives) is MEMBER
            self.earlier.append(before)
        self._member_count += membership.standing(member, lives) is MEMBER
        self._members[user_id] = MemberVersion(
            self.group_id,
            user_id,
            recorded.position,
            recorded.event.occurred_at,
            int(before is None),
            _CHANGES.get(type(recorded.event)),
            member,
        )

    def _count_members(self) -> int:
        """Count the members after a change of lives."""
        lives = self._profile.lives
        if lives.dismissed:
            return 0

        def count(versions: Mapping[str, MemberVersion]) -> int:
            return sum(membership.standing(version.member, lives) is MEMBER for version in versions.values())

        stored = self._tables.count_present(self.group_id, membership.roster_floor(lives)) if self._stored else 0
        return stored - count(self._stored_members) + count(self._members)

    def _owner_exited(self) -> tuple[int, int]:
        owner = self._profile.owner.value or ""
        if owner in self._members:
            return self._members[owner].member.exited
        is_as_stored = self._stored is not None and self._stored.profile.owner.value == owner
        return self._stored.owner_exited if self._stored and is_as_stored else NEVER

    def _extend_blocks(self, piece: StreamSlice) -> None:
        times = [recorded.event.occurred_at for recorded in piece.events]
        earliest, latest, newest = min(times), max(times), piece.events[-1]
        if self._blocks and self._blocks[-1].number == piece.block:
            known = self._blocks.pop()
            earliest, latest = min(earliest, known.earliest_at), max(latest, known.latest_at)
        self._blocks.append(Block(self.group_id, piece.block, earliest, latest, newest.version, newest.position))

    def _take_snapshot(self, recorded: Recorded) -> None:
        version = recorded.version
        self.snapshots.append(
            GroupSnapshot(version, recorded.position, self._member_count, self._profile, self._fullness)
        )
        last_version, size = self._tables.last_roster_users(self.group_id) or (0, 0)
        if version - last_version < size // _ROSTER_SHARE:
            return
        since = self._profile.lives.newest_dismissal
        stored = self._tables.present_users(self.group_id, since) if self._stored else ()
        users = [user_id for user_id in stored if user_id not in self._members]
        users += [
            user_id
            for user_id, version in self._members.items()
            if membership.standing(version.member, self._profile.lives) is not membership.OUT
        ]
        self._tables.save_roster_users(RosterUsers(self.group_id, version, sorted(users)))
