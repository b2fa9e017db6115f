"""Time travel: what was true at an earlier moment, by the same folds over stored states and the events since."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from heapq import merge
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from projector.domain import fullness, lives, membership, profile
from projector.domain.events import UndecodableEvent, speaks_of_group
from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, Lives
from projector.domain.membership import Member, Standing
from projector.domain.profile import Profile
from projector.read_model import GroupState, Membership, Roster, RosterState, blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.read_model import Past
    from projector.read_model.blocks import Block

_PAGE: Final = 100
_ALWAYS: Final = 2**63 - 1


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
        """See `Groups`."""
        return self.past(group_id).state()

    def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        """See `Groups`."""
        return self.past(group_id).members(after, limit)

    def member(self, group_id: str, user_id: str) -> Membership | None:
        """See `Groups`."""
        return self.past(group_id).member(user_id)

    def knows_user(self, user_id: str) -> bool:
        """See `Groups`."""
        return any(self.past(group_id).evidence(user_id) != Member() for group_id in self._groups_of(user_id, ""))

    def groups_of(self, user_id: str, after: str, limit: int) -> list[Membership]:
        """See `Groups`."""
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
        self._cut = cut
        self._base, self._rest = self._cut_through(past.blocks(group_id))

    @cached_property
    def profile(self) -> Profile:
        """The profile; its position is 0 if the group was not heard of yet."""
        known = self._past.profile_state(self._group_id, self._base.version) or Profile()
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
        full = self._past.fullness_state(self._group_id, self._base.version) or Fullness()
        for recorded in self._rest:
            full = fullness.evolve(full, recorded)
        owner = self.profile.owner.value
        exited = self.evidence(owner).exited if owner else NEVER
        return GroupState(self._group_id, self.profile, Roster(self.lives, self._member_count()), full, exited)

    def members(self, after: str, limit: int) -> list[Membership]:
        """Return members behind a user id, by user id."""
        found: list[Membership] = []
        for user_id in self.candidates(after):
            if member := self.member(user_id):
                found.append(member)
            if len(found) == limit:
                break
        return found

    def member(self, user_id: str) -> Membership | None:
        """Return a member, None if the user was not one."""
        evidence = self.evidence(user_id)
        if membership.standing(evidence, self.lives) is not Standing.MEMBER:
            return None
        return Membership(self._group_id, user_id, evidence, self.profile.owner)

    def evidence(self, user_id: str) -> Member:
        """Return the evidence about a user."""
        known = self._past.member_until(self._group_id, user_id, self._base.position) or Member()
        for recorded in self._about.get(user_id, ()):
            known = membership.evolve(known, recorded)
        return known

    def candidates(self, after: str) -> Iterator[str]:
        """Give, in order and behind a user id, everybody who can be a member.

        Whoever was out when the roster was stored, and is not spoken of since, is out: a later dismissal or creation
        lets nobody in.
        """
        present = self._present
        spoken_of = sorted(user_id for user_id in self._about if user_id > after)
        return (user_id for user_id, _ in groupby(merge(present[bisect_right(present, after) :], spoken_of)))

    def spoken_of_since(self, earlier: PastGroup, after: str) -> Iterator[str]:
        """Give, in order and behind a user id, everybody whose membership can differ from an earlier cut's.

        That is who is spoken of in between, and both owners; if the lives differ, everybody.
        """
        if self.lives != earlier.lives:
            concerned = merge(earlier.candidates(after), self.candidates(after))
        else:
            owners = sorted(user for group in (earlier, self) if (user := group.profile.owner.value or "") > after)
            concerned = merge(self._users_since(earlier.at or 0, after), owners)
        return (user_id for user_id, _ in groupby(concerned))

    @property
    def at(self) -> int | None:
        """The effective time of the cut in ms, None if it is by position only."""
        return self._cut.at

    def _users_since(self, start_at: int, after: str) -> Iterator[str]:
        end_at = _ALWAYS if self.at is None else self.at
        while page := self._past.users_between(self._group_id, start_at, end_at, after, _PAGE):
            yield from page
            after = page[-1]

    @cached_property
    def _present(self) -> list[str]:
        return self._past.roster_users(self._group_id, self._base.version)

    @cached_property
    def _about(self) -> dict[str, list[Recorded]]:
        about: dict[str, list[Recorded]] = {}
        for recorded in self._rest:
            for user_id in membership.users(recorded.event):
                about.setdefault(user_id, []).append(recorded)
        return about

    def _member_count(self) -> int:
        if self.lives != self._base.lives:
            return (
                0 if self.lives.dismissed else sum(self.member(user_id) is not None for user_id in self.candidates(""))
            )
        present = set(self._present) if self._about and not self.lives.dismissed else set()
        return self._base.member_count + sum(
            (self.member(user_id) is not None) - (user_id in present) for user_id in self._about
        )

    def _cut_through(self, stretches: Sequence[Block]) -> tuple[RosterState, list[Recorded]]:
        """Return the newest stored roster made only of events that count, and the events since that count."""
        version = 0
        for block in stretches:
            if not self._cut.includes_all(block) or (block is stretches[-1] and not block.is_complete):
                break
            version = block.last_version
        nothing = RosterState(self._group_id, 0, 0, Lives(), 0, ())
        base = self._past.roster_state(self._group_id, version) or nothing
        since = (block for block in stretches if block.before >= base.version and self._cut.may_include(block))
        return base, [one for one in self._read(since) if self._cut.includes(one) and _is_evidence(one)]

    def _read(self, stretches: Iterable[Block]) -> Iterator[Recorded]:
        for block in stretches:
            events = self._store.read_group(self._group_id, block.before, blocks.SPACING)
            yield from events
            if events and events[-1].position > self._cut.position:
                return


def differing_members(
    earlier: PastGroup, later: PastGroup, after: str
) -> Iterator[tuple[str, Membership | None, Membership | None]]:
    """Give, in order and behind a user id, whose membership differs between two cuts, as it was in both."""
    for user_id in later.spoken_of_since(earlier, after):
        before, now = earlier.member(user_id), later.member(user_id)
        if (before and shown(before)) != (now and shown(now)):
            yield user_id, before, now


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
        for recorded in store.read_group(group_id, max(block.before, after_version), blocks.SPACING):
            if recorded.version > block.last_version:
                break
            if later.includes(recorded) and not earlier.includes(recorded):
                yield recorded


def _is_evidence(recorded: Recorded) -> bool:
    return speaks_of_group(recorded.event) and not isinstance(recorded.event, UndecodableEvent)
