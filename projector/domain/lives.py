"""Moments, registers, and the lives a group id goes through.

Everything here is evidence of the kind "newest": merging it is commutative and idempotent, so late and
repeated events need no special case.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from projector.domain.events import GroupCreated, GroupDismissed, Recorded

Moment: TypeAlias = tuple[int, int]
"""The order of events: (effective time in ms, position). Position decides only ties."""

NEVER: Final[Moment] = (0, 0)
"""Before every event."""

_EVIDENCE: Final = (GroupCreated, GroupDismissed)


def moment_of(recorded: Recorded) -> Moment:
    """Return the place of an event in the order of events."""
    return (recorded.event.occurred_at, recorded.position)


class Register(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A last-writer-wins value; None is unknown."""

    at: Moment = NEVER
    value: str | None = None

    def write(self, at: Moment, value: str | None) -> Register:
        """Return the register after the value was written at that moment."""
        return Register(at, value) if at > self.at else self

    def since(self, floor: Moment) -> Register:
        """Return the register if it was written after the floor, else an empty one."""
        return self if self.at > floor else UNKNOWN


UNKNOWN: Final = Register()


class Lives(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The newest creation of a group id, and the dismissals that can still bound a life.

    Dismissals older than the one before the newest creation bound nothing any more and are dropped, so this
    stays small however often an id is created again.
    """

    created: Moment = NEVER
    dismissals: tuple[Moment, ...] = ()

    @property
    def ended(self) -> Moment:
        """The newest dismissal."""
        return self.dismissals[-1] if self.dismissals else NEVER

    @property
    def dismissed(self) -> bool:
        """Whether the last life is over: only a creation after the dismissal opens a new one."""
        return self.ended > self.created

    @property
    def floor(self) -> Moment:
        """Where the last life begins: what is older belongs to an earlier one."""
        if not self.dismissals:
            return NEVER
        return max((moment for moment in self.dismissals if moment < self.created), default=NEVER)


def evolve(lives: Lives, recorded: Recorded) -> Lives:
    """Return the lives with this event's evidence merged in."""
    if type(recorded.event) not in _EVIDENCE:
        return lives
    created, dismissals = lives.created, set(lives.dismissals)
    if isinstance(recorded.event, GroupCreated):
        created = max(created, moment_of(recorded))
    else:
        dismissals.add(moment_of(recorded))
    floor = max((moment for moment in dismissals if moment < created), default=NEVER)
    return Lives(created, tuple(sorted(moment for moment in dismissals if moment >= floor)))
