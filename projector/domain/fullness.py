"""Fullness by group. The vendor never says "no longer full": an exit or a dismissal does."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from projector.domain import lives as group_lives
from projector.domain.events import GroupFilled, MembersLeft, Recorded
from projector.domain.lives import NEVER, Lives, Moment, moment_of


class Fullness(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The newest filling, the newest exit of any member, and the lives they fall into."""

    lives: Lives = Lives()
    filled: Moment = NEVER
    exited: Moment = NEVER

    @property
    def is_full(self) -> bool:
        """Whether nothing has made room since the group was last reported full."""
        return self.full_at is not None and self.filled > self.exited

    @property
    def full_at(self) -> int | None:
        """When the group was last reported full in this life, in ms; None if never."""
        return None if self.lives.dismissed or self.filled <= self.lives.ended else self.filled[0]


def evolve(fullness: Fullness, recorded: Recorded) -> Fullness:
    """Return the evidence with this event merged in."""
    match recorded.event:
        case GroupFilled():
            return replace(fullness, filled=max(fullness.filled, moment_of(recorded)))
        case MembersLeft(members=members) if members:
            return replace(fullness, exited=max(fullness.exited, moment_of(recorded)))
        case _:
            lives = group_lives.evolve(fullness.lives, recorded)
            return fullness if lives is fullness.lives else replace(fullness, lives=lives)
