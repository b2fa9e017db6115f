"""Fullness of a group. The vendor does not report that a group is no longer full; an exit or a dismissal implies it."""

from typing import Final

import msgspec
from msgspec.structs import replace

from projector.domain import lives as group_lives
from projector.domain.events import (
    Event,
    GroupCreated,
    GroupDismissed,
    GroupFilled,
    GroupObserved,
    GroupObservedAbsent,
    MembersLeft,
    Recorded,
)
from projector.domain.lives import NEVER, Lives, Moment, moment_of

_EVIDENCE: Final = (
    GroupCreated,
    GroupDismissed,
    GroupFilled,
    GroupObserved,
    GroupObservedAbsent,
    MembersLeft,
)


class Fullness(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The newest report that the group is full, the newest exit of any member, and the lives of the group.

    An observation that it is full is such a report, one that it is not is an exit. A member's observed absence is none:
    the exit may have been before the group became full. `limit` is the observed one.
    """

    lives: Lives = Lives()
    filled: Moment = NEVER
    exited: Moment = NEVER
    limited: Moment = NEVER
    limit: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether the group was reported full in this life and nobody left since."""
        return self.full_at is not None and self.filled > self.exited

    @property
    def full_at(self) -> int | None:
        """When the group was last reported full in this life, in ms; None if never."""
        return None if self.filled <= self.lives.newest_dismissal or self.lives.dismissed else self.filled[0]

    @property
    def observed_limit(self) -> int | None:
        """How many members the group may have, None unless that was observed in this life."""
        return self.limit if self.limited > self.lives.newest_dismissal else None

    def member_limit(self, member_count: int, *, roster_complete: bool) -> int | None:
        """Return how many members the group may have, which callbacks do not tell.

        Unless it was observed, it is the member count while the group is full and its roster complete, else None.
        """
        if (limit := self.observed_limit) is not None:
            return limit
        return member_count if self.is_full and roster_complete else None


def concerns_fullness(event: Event) -> bool:
    """Tell whether an event is evidence about fullness."""
    return type(event) in _EVIDENCE


def evolve(fullness: Fullness, recorded: Recorded) -> Fullness:
    """Return the fullness with the evidence of an event merged in."""
    moment = moment_of(recorded)
    match recorded.event:
        case GroupFilled():
            return replace(fullness, filled=max(fullness.filled, moment))
        case MembersLeft(members=members) if members:
            return replace(fullness, exited=max(fullness.exited, moment))
        case GroupObserved() as event:
            fullness = _observed(fullness, moment, event)
    lives = group_lives.evolve(fullness.lives, recorded)
    return fullness if lives is fullness.lives else replace(fullness, lives=lives)


def _observed(fullness: Fullness, moment: Moment, event: GroupObserved) -> Fullness:
    if event.member_limit is not None and moment > fullness.limited:
        fullness = replace(fullness, limited=moment, limit=event.member_limit)
    if event.is_full is None:
        return fullness
    register = "filled" if event.is_full else "exited"
    return replace(fullness, **{register: max(getattr(fullness, register), moment)})
