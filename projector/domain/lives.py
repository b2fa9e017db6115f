"""Moments, registers, and the lives of a group id.

All evidence keeps the newest of its kind. Merging it is commutative and idempotent, so late and repeated events need
no special case.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from projector.domain.events import GroupCreated, GroupDismissed, Recorded

Moment: TypeAlias = tuple[int, int]
"""The order of events: (effective time in ms, position). Position decides only ties."""

NEVER: Final[Moment] = (0, 0)
"""Before every event."""

FOREVER: Final[Moment] = (2**63 - 1, 2**63 - 1)
"""After every event."""

_EVIDENCE: Final = (GroupCreated, GroupDismissed)


def moment_of(recorded: Recorded) -> Moment:
    """Return an event's place in the order of events."""
    return (recorded.event.occurred_at, recorded.position)


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

    Earlier dismissals no longer matter and are dropped, so this stays small however often an id is created again.
    """

    created: Moment = NEVER
    dismissals: tuple[Moment, ...] = ()

    @property
    def newest_dismissal(self) -> Moment:
        """The newest dismissal."""
        return self.dismissals[-1] if self.dismissals else NEVER

    @property
    def dismissed(self) -> bool:
        """Whether the last life is over. Only a later creation begins a new one."""
        return bool(self.dismissals) and self.dismissals[-1] > self.created

    @property
    def floor(self) -> Moment:
        """The newest dismissal before the newest creation: evidence up to it belongs to an earlier life."""
        if not self.dismissals:
            return NEVER
        return max((moment for moment in self.dismissals if moment < self.created), default=NEVER)

    @property
    def roster_complete(self) -> bool:
        """Whether the creation, and with it the first roster, was recorded."""
        return self.created != NEVER

    @property
    def created_at(self) -> int | None:
        """When the group was last created, in ms; None if that was not recorded."""
        return self.created[0] if self.roster_complete else None

    @property
    def dismissed_at(self) -> int | None:
        """When the group was dismissed, in ms; None if it is active."""
        return self.newest_dismissal[0] if self.dismissed else None


def evolve(lives: Lives, recorded: Recorded) -> Lives:
    """Return the lives with the evidence of an event merged in."""
    if type(recorded.event) not in _EVIDENCE:
        return lives
    moment = moment_of(recorded)
    if isinstance(recorded.event, GroupCreated):
        merged = Lives(max(lives.created, moment), lives.dismissals)
    else:
        merged = Lives(lives.created, tuple(sorted({*lives.dismissals, moment})))
    floor = merged.floor
    return Lives(merged.created, tuple(moment for moment in merged.dismissals if moment >= floor))
