"""Moments, registers, and the lives of a group id.

All evidence keeps the newest of its kind. Merging it is commutative and idempotent, so late and repeated events need
no special case.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec.structs import replace

from projector.domain.events import (
    GroupCreated,
    GroupDismissed,
    GroupObserved,
    GroupObservedAbsent,
    Recorded,
    RosterObserved,
)

Moment: TypeAlias = tuple[int, int]
"""The order of events: (effective time in ms, position). Position decides only ties.

Observations come before all callbacks of their millisecond: their positions are lowered below all others.
"""

NEVER: Final[Moment] = (0, 0)
"""Before every event."""

FOREVER: Final[Moment] = (2**63 - 1, 2**63 - 1)
"""After every event."""

_OBSERVED: Final = 2**62
_EVIDENCE: Final = (GroupCreated, GroupDismissed, GroupObserved, GroupObservedAbsent, RosterObserved)


def moment_of(recorded: Recorded) -> Moment:
    """Return an event's place in the order of events."""
    event, position = recorded.event, recorded.position
    return (event.occurred_at, position if event.SOURCE == "callback" else position - _OBSERVED)


def is_reported(moment: Moment) -> bool:
    """Tell whether the event of a moment was reported by a callback, not observed."""
    return moment[1] >= 0


class Register(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A last-writer-wins value; None means unknown."""

    at: Moment = NEVER
    value: str | None = None

    def write(self, at: Moment, value: str | None) -> Register:
        """Return the register with this value, unless it has a newer one."""
        return Register(at, value) if at > self.at else self

    def since(self, floor: Moment) -> Register:
        """Return the register if it was written after the floor, else `UNKNOWN`."""
        return self if self.at > floor else UNKNOWN


UNKNOWN: Final = Register()


class Lives(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The newest creation of a group id, and the dismissals from the floor on, oldest first.

    Earlier dismissals no longer matter and are dropped, so this stays small however often an id is created again. An
    observed absence of the group is a dismissal. `alive` is the newest observation of the group, with the time of its
    creation in ms, and `listed` that of its whole roster.
    """

    created: Moment = NEVER
    dismissals: tuple[Moment, ...] = ()
    alive: Moment = NEVER
    alive_since: int | None = None
    listed: Moment = NEVER

    @property
    def opened(self) -> Moment:
        """The newest evidence that there is a life: a creation or an observation of the group."""
        return max(self.created, self.alive)

    @property
    def newest_dismissal(self) -> Moment:
        """The newest dismissal."""
        return self.dismissals[-1] if self.dismissals else NEVER

    @property
    def dismissed(self) -> bool:
        """Whether the last life is over. Only a later creation, or observation of the group, begins a new one."""
        return bool(self.dismissals) and self.dismissals[-1] > self.opened

    @property
    def floor(self) -> Moment:
        """The newest dismissal before the last life was opened: evidence up to it belongs to an earlier life."""
        if not self.dismissals:
            return NEVER
        return max((moment for moment in self.dismissals if moment < self.opened), default=NEVER)

    @property
    def roster_complete(self) -> bool:
        """Whether the creation, and with it the first roster, was recorded, or a whole roster was observed."""
        return max(self.created, self.listed) > self.floor

    @property
    def created_at(self) -> int | None:
        """When the group was last created, in ms; None if that is not known."""
        floor = self.floor
        reported = self.created[0] if self.created > floor else None
        observed = self.alive_since if self.alive > floor else None
        return max((time for time in (reported, observed) if time is not None), default=None)

    @property
    def dismissed_at(self) -> int | None:
        """When the group was dismissed, in ms; None if it is active.

        That is the newest report of it. Without one, the group was gone by its first observed absence at the latest.
        """
        last = [moment for moment in self.dismissals if moment > self.opened]
        if not last:
            return None
        return max(filter(is_reported, last), default=last[0])[0]


def evolve(lives: Lives, recorded: Recorded) -> Lives:
    """Return the lives with the evidence of an event merged in."""
    if type(recorded.event) not in _EVIDENCE:
        return lives
    merged = _merged(lives, recorded)
    floor = merged.floor
    return replace(merged, dismissals=tuple(moment for moment in merged.dismissals if moment >= floor))


def _merged(lives: Lives, recorded: Recorded) -> Lives:
    moment = moment_of(recorded)
    match recorded.event:
        case GroupCreated():
            return replace(lives, created=max(lives.created, moment))
        case GroupObserved(created_at=created_at):
            return replace(lives, alive=moment, alive_since=created_at) if moment > lives.alive else lives
        case RosterObserved():
            return replace(lives, listed=max(lives.listed, moment))
        case _:
            return replace(lives, dismissals=tuple(sorted({*lives.dismissals, moment})))
