"""Time travel: what was true at an earlier moment, by the same folds over stored states and the events since."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from heapq import merge
from itertools import groupby, islice, tee
from typing import TYPE_CHECKING, Final, NamedTuple

from projector.domain import fullness, lives, membership, profile
from projector.domain.events import UndecodableEvent, concerns_group
from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, Lives
from projector.domain.membership import Member, Standing
from projector.domain.profile import Profile
from projector.event_store import group_history
from projector.read_model import blocks
from projector.read_model.groups import GroupState, Membership
from projector.read_model.rows import Roster, RosterSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.read_model.blocks import Block
    from projector.read_model.past import Past
    from projector.read_model.rows import RosterUsers

_PAGE: Final = 100
_MANY: Final = 5_000
"""To find out who is spoken of in more events than this takes longer than to look at every member."""

_NOBODY: Final = Member()


class Cut(NamedTuple):
    """Which events count: those up to a position and, if given, up to an effective time in ms."""

    position: int
    at: int | None = None

    def includes(self, recorded: Recorded) -> bool:
        """Tell whether an event counts."""
        return recorded.position <= self.position and (self.at is None or recorded.event.occurred_at <= self.at)

    def includes_all(self, block: Block) -> bool:
        """Tell whether every event of a block counts."""
        return block.last_position <= self.position and (self.at is None or block.latest_at <= self.at)

    def may_include(self, block: Block) -> bool:
        """Tell whether an event of a block may count."""
        return self.at is None or block.earliest_at <= self.at


class PastGroups:
    """`Groups` as a cut through all events shows them."""

    def __init__(self, store: EventStore, past: Past, cut: Cut) -> None:
        self._store = store
        self._past = past
        self._cut = cut
        self._seen: dict[str, PastGroup] = {}

    def group(self, group_id: str) -> GroupState | None:
        return self.past(group_id).state()

    def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        return self.past(group_id).members(after, limit)

    def member(self, group_id: str, user_id: str) -> Membership | None:
        return self.past(group_id).member(user_id)

    def knows_user(self, user_id: str) -> bool:
        return any(self.past(group_id).evidence(user_id) != Member() for group_id in self._groups_of(user_id, ""))

    def groups_of(self, user_id: str, after: str, limit: int) -> list[Membership]:
        memberships = (self.past(group_id).member(user_id) for group_id in self._groups_of(user_id, after))
        return list(islice((one for one in memberships if one is not None), limit))

    def past(self, group_id: str) -> PastGroup:
        """Return one group; it need not be known."""
        if group_id not in self._seen:
            self._seen[group_id] = PastGroup(self._store, self._past, group_id, self._cut)
        return self._seen[group_id]

    def _groups_of(self, user_id: str, after: str) -> Iterator[str]:
        while page := self._past.groups_ever_of(user_id, after, _PAGE):
            yield from page
            after = page[-1]


class PastGroup:
    """One group as a cut through its events shows it.

    All methods raise StoreUnavailable and ReadModelUnavailable.
    """

    def __init__(self, store: EventStore, past: Past, group_id: str, cut: Cut) -> None:
        self._store = store
        self._past = past
        self._group_id = group_id
        self.cut = cut
        self._blocks = past.blocks(group_id)
        self._base = self._newest_base()
        since = (block for block in self._blocks if block.before >= self._base.version and cut.may_include(block))
        self._rest = [one for one in self._read(since) if cut.includes(one) and _is_evidence(one)]
        self._members: dict[str, Member] = {}

    @cached_property
    def profile(self) -> Profile:
        """The profile; its position is 0 if the group was not heard of yet."""
        known = self._past.profile_snapshot(self._group_id, self._base.version) or Profile()
        for recorded in self._rest:
            known = profile.evolve(known, recorded)
        return known

    @cached_property
    def lives(self) -> Lives:
        """The lives of the group."""
        now = self._base.lives
        for recorded in self._rest:
            now = lives.evolve(now, recorded)
        return now

    def state(self) -> GroupState | None:
        """Return the group, None if it was not heard of yet."""
        if not self.profile.position:
            return None
        full = self._past.fullness_snapshot(self._group_id, self._base.version) or Fullness()
        for recorded in self._rest:
            full = fullness.evolve(full, recorded)
        owner = self.profile.owner.value
        exited = self.evidence(owner).exited if owner else NEVER
        return GroupState(self._group_id, self.profile, Roster(self.lives, self._member_count()), full, exited)

    def members(self, after: str, limit: int) -> list[Membership]:
        """Return members behind a user id, by user id."""
        return list(islice((member for _, member in self.standing(self.candidates(after)) if member), limit))

    def member(self, user_id: str) -> Membership | None:
        """Return a member, None if the user was not one."""
        evidence = self.evidence(user_id)
        if membership.standing(evidence, self.lives) is not Standing.MEMBER:
            return None
        return Membership(self._group_id, user_id, evidence, self.profile.owner)

    def standing(self, user_ids: Iterable[str]) -> Iterator[tuple[str, Membership | None]]:
        """Give users with their membership, if they were members; the evidence is read for many at once."""
        rest = iter(user_ids)
        while some := list(islice(rest, _PAGE)):
            self._bring(some)
            yield from ((user_id, self.member(user_id)) for user_id in some)

    def evidence(self, user_id: str) -> Member:
        """Return the evidence about a user."""
        self._bring([user_id])
        known = self._members[user_id]
        for recorded in self._about.get(user_id, ()):
            known = membership.evolve(known, recorded)
        return known

    def candidates(self, after: str) -> Iterator[str]:
        """Give, in order and behind a user id, everybody who can be a member.

        Whoever was out when the users were stored, and is not spoken of since, is out: a later dismissal or creation
        lets nobody in.
        """
        users, spoken_of = self._stored_users.users, sorted(self._spoken_of)
        return unique(merge(users[bisect_right(users, after) :], spoken_of[bisect_right(spoken_of, after) :]))

    def changed_since(self, earlier: PastGroup, after: str) -> Iterator[str]:
        """Give, in order and behind a user id, everybody whose membership can differ from an earlier cut's.

        That is who is spoken of in between, and both owners; if the lives differ, everybody.
        """
        span = earlier.cut, self.cut
        if self.lives != earlier.lives or _events_in(self._blocks, span) > _MANY:
            return unique(merge(earlier.candidates(after), self.candidates(after)))
        told = filter(_is_evidence, events_between(self._store, self._past, self._group_id, span, 0))
        spoken_of = {user_id for one in told for user_id in membership.users(one.event)}
        owners = {group.profile.owner.value or "" for group in (earlier, self)}
        return iter(sorted(user_id for user_id in spoken_of | owners if user_id > after))

    @cached_property
    def _stored_users(self) -> RosterUsers:
        return self._past.roster_users(self._group_id, self._base.version)

    @cached_property
    def _spoken_of(self) -> set[str]:
        """Whoever is spoken of since the users were stored."""
        found = set(self._about)
        for one in self._versions(self._stored_users.version, self._base.version):
            if _is_evidence(one):
                found.update(membership.users(one.event))
        return found

    @cached_property
    def _about(self) -> dict[str, list[Recorded]]:
        about: dict[str, list[Recorded]] = {}
        for recorded in self._rest:
            for user_id in membership.users(recorded.event):
                about.setdefault(user_id, []).append(recorded)
        return about

    def _bring(self, user_ids: Sequence[str]) -> None:
        """Read what was known about users at the base."""
        if missing := [user_id for user_id in user_ids if user_id not in self._members]:
            found = self._past.members_until(self._group_id, missing, self._base.position)
            self._members.update((user_id, found.get(user_id, _NOBODY)) for user_id in missing)

    def _member_count(self) -> int:
        if self.lives.dismissed:
            return 0
        if self.lives != self._base.lives:
            return sum(member is not None for _, member in self.standing(self.candidates("")))
        self._bring([*self._about])
        return self._base.member_count + sum(
            (self.member(user_id) is not None)
            - (membership.standing(self._members[user_id], self._base.lives) is Standing.MEMBER)
            for user_id in self._about
        )

    def _newest_base(self) -> RosterSnapshot:
        """Return the newest state that is made only of events that count."""
        version = 0
        for block in self._blocks:
            if not (self.cut.includes_all(block) and block.is_complete):
                break
            version = block.last_version
        nothing = RosterSnapshot(self._group_id, 0, 0, Lives(), 0)
        return self._past.roster_snapshot(self._group_id, version) or nothing

    def _read(self, blocks_to_read: Iterable[Block]) -> Iterator[Recorded]:
        for block in blocks_to_read:
            for recorded in self._versions(block.before, block.before + blocks.SPACING):
                if recorded.position > self.cut.position:
                    return
                yield recorded

    def _versions(self, after: int, last: int) -> Iterator[Recorded]:
        return islice(group_history(self._store, self._group_id, after, last - after), last - after)


def unique(ordered: Iterable[str]) -> Iterator[str]:
    """Give what is in order, each once."""
    return (one for one, _ in groupby(ordered))


def differing_members(
    earlier: PastGroup, later: PastGroup, after: str
) -> Iterator[tuple[str, Membership | None, Membership | None]]:
    """Give, in order and behind a user id, whose membership differs between two cuts by time, as it was in both."""
    of_later, of_earlier = tee(later.changed_since(earlier, after))
    for (user_id, now), (_, before) in zip(later.standing(of_later), earlier.standing(of_earlier), strict=True):
        if (before and shown(before)) != (now and shown(now)):
            yield user_id, before, now


def _events_in(stream_blocks: Sequence[Block], span: tuple[Cut, Cut]) -> int:
    """Return about how many events there are between two cuts."""
    earlier, later = span
    return sum(
        block.last_version - block.before
        for block in stream_blocks
        if later.may_include(block) and not earlier.includes_all(block)
    )


def shown(member: Membership) -> tuple[object, ...]:
    """Return all that can be seen of a member."""
    return (
        membership.role(member.user_id, member.member, member.owner),
        membership.name_card(member.member),
        member.member.joined,
        member.member.join_type,
        member.member.operator,
    )


def events_between(
    store: EventStore, past: Past, group_id: str, span: tuple[Cut, Cut], after_version: int
) -> Iterator[Recorded]:
    """Give a group's events behind a version, in order, that the second cut includes and the first does not."""
    earlier, later = span
    for block in past.blocks(group_id):
        if block.last_version <= after_version or earlier.includes_all(block) or not later.may_include(block):
            continue
        after = max(block.before, after_version)
        count = block.last_version - after
        for recorded in islice(group_history(store, group_id, after, count), count):
            if later.includes(recorded) and not earlier.includes(recorded):
                yield recorded


def _is_evidence(recorded: Recorded) -> bool:
    return concerns_group(recorded.event) and not isinstance(recorded.event, UndecodableEvent)
