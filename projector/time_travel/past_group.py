"""One group as of a cut: a snapshot stored at the end of a block, and the events since."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from heapq import merge
from itertools import groupby, islice
from typing import Final, NamedTuple

from projector.domain import fullness, membership, profile
from projector.domain.events import Recorded, concerns_group
from projector.domain.fullness import Fullness
from projector.domain.limits import utf8_length
from projector.domain.lives import NEVER, Lives, Register
from projector.domain.membership import Member, Standing
from projector.domain.profile import Profile
from projector.event_store import EventReader
from projector.event_store.reading import group_history
from projector.read_model import blocks, shapes
from projector.read_model.blocks import Block
from projector.read_model.evidence import encode
from projector.read_model.pages import Page, take_page
from projector.read_model.rows import GroupSnapshot, RosterUsers
from projector.read_model.shapes import Group
from projector.read_model.stored_states import StoredStates
from projector.time_travel.cut import Cut
from projector.time_travel.span import Span, events_between

_BATCH_SIZE: Final = 100
_MAX_EVENTS: Final = 5_000
"""Reading more events than this, to learn whom they mention, takes longer than comparing every member."""

_NO_EVIDENCE: Final = Member()


class Membership(NamedTuple):
    """One member of one group, with the group's owner register, which decides the role."""

    group_id: str
    user_id: str
    member: Member
    owner: Register

    def shown(self) -> shapes.Member:
        return shapes.member_of(self.user_id, self.member, self.owner)


class PastGroup:
    """One group, which need not be known, as of a cut. All methods raise StoreUnavailable and ReadModelUnavailable."""

    def __init__(self, events: EventReader, stored_states: StoredStates, group_id: str, cut: Cut) -> None:
        self._reader = events
        self._stored_states = stored_states
        self._group_id = group_id
        self.cut = cut
        self._blocks = stored_states.blocks(group_id)
        self._snapshot = self._newest_snapshot()
        self._events = self._evidence_since_snapshot()
        self._members: dict[str, Member] = {}
        """Evidence about users up to the snapshot, as far as it was needed."""

    @cached_property
    def profile(self) -> Profile:
        """The profile; its position is 0 if the group is not known yet."""
        known = self._snapshot.profile
        for recorded in self._events:
            known = profile.evolve(known, recorded)
        return known

    @cached_property
    def fullness(self) -> Fullness:
        """The fullness of the group."""
        known = self._snapshot.fullness
        for recorded in self._events:
            known = fullness.evolve(known, recorded)
        return known

    @property
    def lives(self) -> Lives:
        """The lives of the group."""
        return self.profile.lives

    def state(self) -> Group | None:
        """Return the group, None if it is not known yet."""
        if not self.profile.position:
            return None
        owner = self.profile.owner.value
        exited = self.evidence(owner).exited if owner else NEVER
        return shapes.group(self._group_id, self.profile, self.member_count(), self.fullness, exited)

    def members(self, after: str, limit: int) -> Page[Membership]:
        """Return a page of members after a user id, by user id."""
        memberships = (member for _, member in self.memberships(self.candidates(after)) if member)
        return take_page(memberships, limit, membership_size)

    def member(self, user_id: str) -> Membership | None:
        """Return a member, None if the user was not one."""
        evidence = self.evidence(user_id)
        if membership.standing(evidence, self.lives) is not Standing.MEMBER:
            return None
        return Membership(self._group_id, user_id, evidence, self.profile.owner)

    def memberships(self, user_ids: Iterable[str]) -> Iterator[tuple[str, Membership | None]]:
        """Yield each user with the membership, None for users who were not members; evidence is read in batches."""
        remaining = iter(user_ids)
        while batch := list(islice(remaining, _BATCH_SIZE)):
            self._load_evidence(batch)
            yield from ((user_id, self.member(user_id)) for user_id in batch)

    def evidence(self, user_id: str) -> Member:
        """Return the evidence about a user."""
        self._load_evidence([user_id])
        known = self._members[user_id]
        for recorded in self._events_by_user.get(user_id, ()):
            known = membership.evolve(user_id, known, recorded)
        return known

    def names(self, user_id: str) -> bool:
        """Tell whether any event is about the user, even one that is no evidence of membership."""
        if user_id in self._events_by_user:
            return True
        return bool(self._stored_states.members_until(self._group_id, [user_id], self._snapshot.position))

    def candidates(self, after: str) -> Iterator[str]:
        """Yield, in order and after a user id, every user who can be a member.

        A user who was out when the users were stored, and is not mentioned since, is still out: later dismissals and
        creations add no user who is not mentioned.
        """
        stored, mentioned = self._stored_users.users, sorted(self._mentioned_since_stored)
        ordered = merge(stored[bisect_right(stored, after) :], mentioned[bisect_right(mentioned, after) :])
        return (user_id for user_id, _ in groupby(ordered))

    def mentioned_since(self, earlier: Cut) -> set[str] | None:
        """Return the users mentioned since an earlier cut by time; None if there are too many events to read."""
        span = Span(earlier, self.cut)
        if sum(block.last_version - block.before for block in self._blocks if span.may_include(block)) > _MAX_EVENTS:
            return None
        return _mentioned(events_between(self._reader, self._stored_states, self._group_id, span))

    @cached_property
    def _stored_users(self) -> RosterUsers:
        """The newest stored users, which may be older than the snapshot."""
        return self._stored_states.roster_users(self._group_id, self._snapshot.version)

    @cached_property
    def _mentioned_since_stored(self) -> set[str]:
        return {*self._events_by_user} | _mentioned(self._read(self._stored_users.version, self._snapshot.version))

    @cached_property
    def _events_by_user(self) -> dict[str, list[Recorded]]:
        events: dict[str, list[Recorded]] = {}
        for recorded in self._events:
            for user_id in membership.users(recorded.event):
                events.setdefault(user_id, []).append(recorded)
        return events

    def _load_evidence(self, user_ids: Iterable[str]) -> None:
        """Read the evidence about users up to the snapshot, unless it is there already."""
        if missing := [user_id for user_id in user_ids if user_id not in self._members]:
            known = self._stored_states.members_until(self._group_id, missing, self._snapshot.position)
            self._members.update((user_id, known.get(user_id, _NO_EVIDENCE)) for user_id in missing)

    def member_count(self) -> int:
        """Return the number of members."""
        if self.lives.dismissed:
            return 0
        if self.lives != self._snapshot.profile.lives:
            return sum(member is not None for _, member in self.memberships(self.candidates("")))
        mentioned = self._events_by_user
        self._load_evidence(mentioned)
        before = sum(self._was_member_in_snapshot(user_id) for user_id in mentioned)
        return self._snapshot.member_count - before + sum(self.member(user_id) is not None for user_id in mentioned)

    def _was_member_in_snapshot(self, user_id: str) -> bool:
        return membership.standing(self._members[user_id], self._snapshot.profile.lives) is Standing.MEMBER

    def _newest_snapshot(self) -> GroupSnapshot:
        """Return the newest snapshot that covers only events of the cut."""
        version = 0
        for block in self._blocks:
            if not (self.cut.includes_all(block) and block.is_complete):
                break
            version = block.last_version
        return self._stored_states.snapshot(self._group_id, version)

    def _evidence_since_snapshot(self) -> list[Recorded]:
        version = self._snapshot.version
        since = [block for block in self._blocks if block.before >= version and self.cut.may_include(block)]
        events = self._read_blocks(since)
        return [recorded for recorded in events if self.cut.includes(recorded) and concerns_group(recorded.event)]

    def _read_blocks(self, stream_blocks: Sequence[Block]) -> Iterator[Recorded]:
        for block in stream_blocks:
            for recorded in self._read(block.before, block.before + blocks.SIZE):
                if recorded.position > self.cut.position:
                    return
                yield recorded

    def _read(self, after: int, last: int) -> Iterator[Recorded]:
        """Yield the events after one version, up to another."""
        return islice(group_history(self._reader, self._group_id, after, last - after), last - after)


def membership_size(row: Membership) -> int:
    """Return the size of a membership in bytes, as in the read model."""
    return utf8_length(row.group_id) + utf8_length(row.user_id) + utf8_length(encode(row.member))


def _mentioned(events: Iterable[Recorded]) -> set[str]:
    """Return the users that events are evidence about."""
    return {
        user_id for recorded in events if concerns_group(recorded.event) for user_id in membership.users(recorded.event)
    }
