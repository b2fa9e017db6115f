"""One group, folded forward event by event: what each event changes in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from projector.domain import fullness, membership, profile
from projector.domain.events import (
    AttributesChanged,
    GroupFilled,
    GroupProfileChanged,
    MemberChanged,
    MembersJoined,
    MembersLeft,
    MembersObserved,
    MembersObservedAbsent,
    OwnerChanged,
    Recorded,
    concerns_group,
)
from projector.domain.fullness import Fullness
from projector.domain.lives import NEVER, UNKNOWN, Moment, moment_of
from projector.domain.membership import Member, Standing
from projector.domain.profile import Profile
from projector.event_store import EventReader
from projector.read_model import shapes
from projector.read_model.stored_states import StoredStates
from projector.time_travel.cut import Cut
from projector.time_travel.past_group import PastGroup

_NO_EVIDENCE: Final = Member()
_ABOUT_TEXTS: Final = ("name", "introduction", "notification", "face_url", "owner")


class Past(NamedTuple):
    """Where earlier states come from: a reader of events, and the stored states of one session."""

    events: EventReader
    stored_states: StoredStates

    def group(self, group_id: str, position: int) -> PastGroup:
        return PastGroup(self.events, self.stored_states, group_id, Cut(position))


class MemberDifference(NamedTuple):
    """A user before and after an event, None if not a member."""

    user_id: str
    before: shapes.Member | None
    after: shapes.Member | None


class Difference(NamedTuple):
    """What an event changed. `before` is None if the group was not known.

    If the event `redecides` about users whom it does not name, `members` are not all that changed. An event is `late`
    if it happened before something that was already known about the same subject.
    """

    recorded: Recorded
    before: shapes.Group | None
    after: shapes.Group
    members: list[MemberDifference]
    redecides: bool
    late: bool


class FoldedGroup:
    """A group after an event, which can be folded forward only. Methods raise StoreUnavailable, ReadModelUnavailable.

    Evidence about users is kept as far as it was needed.
    """

    def __init__(self, group_id: str, past: PastGroup | None) -> None:
        self._group_id = group_id
        self._profile, self._fullness, self._member_count = Profile(), Fullness(), 0
        self._members: dict[str, Member] = {}
        if past and past.profile.position:
            self._profile, self._fullness, self._member_count = past.profile, past.fullness, past.member_count()

    @property
    def weight(self) -> int:
        """The number of pieces of evidence kept."""
        return 1 + len(self._members)

    def load(self, past: Past, user_ids: Iterable[str], position: int) -> None:
        """Read the evidence about users after the event at a position, unless it is there already."""
        if missing := [user_id for user_id in dict.fromkeys(user_ids) if user_id not in self._members]:
            known = past.stored_states.members_until(self._group_id, missing, position)
            self._members.update((user_id, known.get(user_id, _NO_EVIDENCE)) for user_id in missing)

    def fold(self, past: Past, recorded: Recorded) -> Difference | None:
        """Fold the next event of the group, and return what it changed; None if it is about something else."""
        event = recorded.event
        if not concerns_group(event):
            return None
        evolved = profile.evolve(self._profile, recorded)
        named = membership.users(event)
        owners = [owner for owner in (self._profile.owner.value, evolved.owner.value) if owner]
        subjects = [*dict.fromkeys((*named, *owners))]
        self.load(past, subjects, recorded.position - 1)
        before, members_before = self._shown(), [self._shown_member(user_id) for user_id in subjects]
        count_before, named_before, lives_before = self._member_count, self._present(named), self._profile.lives

        self._profile, self._fullness = evolved, fullness.evolve(self._fullness, recorded)
        for user_id in named:
            self._members[user_id] = membership.evolve(user_id, self._members[user_id], recorded)
        others_before = count_before - named_before
        others = others_before
        if membership.roster_floor(lives_before) != membership.roster_floor(evolved.lives):
            others = self._recount(past, recorded.position) - self._present(named)
        self._member_count = others + self._present(named)

        after = self._shown()
        assert after is not None
        members = map(MemberDifference, subjects, members_before, map(self._shown_member, subjects))
        return Difference(
            recorded,
            before,
            after,
            [member for member in members if member.before != member.after],
            redecides=others != others_before and not evolved.lives.dismissed,
            late=self._is_late(recorded),
        )

    def _recount(self, past: Past, position: int) -> int:
        return 0 if self._profile.lives.dismissed else past.group(self._group_id, position).member_count()

    def _present(self, user_ids: Iterable[str]) -> int:
        return sum(self._is_member(user_id) for user_id in user_ids)

    def _is_member(self, user_id: str) -> bool:
        return membership.standing(self._members[user_id], self._profile.lives) is Standing.MEMBER

    def _shown_member(self, user_id: str) -> shapes.Member | None:
        if not self._is_member(user_id):
            return None
        return shapes.member_of(user_id, self._members[user_id], self._profile.owner)

    def _shown(self) -> shapes.Group | None:
        if not self._profile.position:
            return None
        owner = self._profile.owner.value
        exited = self._members[owner].exited if owner else NEVER
        return shapes.group(self._group_id, self._profile, self._member_count, self._fullness, exited)

    def _is_late(self, recorded: Recorded) -> bool:
        """Tell whether newer evidence is known, now that the event is folded, about the subject of the event."""
        event, moment = recorded.event, moment_of(recorded)
        if max(self._profile.lives.created, self._profile.lives.newest_dismissal) > moment:
            return True
        match event:
            case MembersJoined() | MembersLeft() | MemberChanged() | MembersObserved() | MembersObservedAbsent():
                return any(_newest(self._members[user_id]) > moment for user_id in membership.users(event))
            case GroupFilled():
                return max(self._fullness.filled, self._fullness.exited) > moment
            case GroupProfileChanged() | OwnerChanged() | AttributesChanged():
                return _newest_written(self._profile, event) > moment
            case _:  # about the group as a whole
                return self._profile.updated_at > event.occurred_at


def _newest(member: Member) -> Moment:
    return max(member.entered, member.exited, member.role.at, member.name_card.at)


def _newest_written(known: Profile, event: GroupProfileChanged | OwnerChanged | AttributesChanged) -> Moment:
    """Return the newest moment at which any of the fields that an event writes was written."""
    if isinstance(event, AttributesChanged):
        written = [known.attributes.get(key, UNKNOWN).at for key in event.attributes]
        return max([known.attributes_reset, *written], default=NEVER)
    if isinstance(event, OwnerChanged):
        return known.owner.at
    texts: list[Moment] = [getattr(known, name).at for name in _ABOUT_TEXTS if getattr(event, name) is not None]
    fields = [known.custom_fields.get(key, UNKNOWN).at for key in event.custom_fields]
    return max([NEVER, *texts, *fields])
