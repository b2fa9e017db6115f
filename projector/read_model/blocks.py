"""Blocks: a stream is cut into stretches of as many events each, at whose ends the folds' states are stored."""

from typing import Final, NamedTuple

SPACING: Final = 512
"""Events in a block. Answering for any moment means folding about so many, whatever the length of the stream."""


class Block(NamedTuple):
    """One stretch of a group's stream; `number` counts from 0, times are effective and in ms since 1970 UTC.

    `last_version` and `last_position` are those of the newest event in it so far.
    """

    group_id: str
    number: int
    earliest_at: int
    latest_at: int
    last_version: int
    last_position: int

    @property
    def is_complete(self) -> bool:
        """Whether no more events come into it."""
        return self.last_version == last_version(self.number)

    @property
    def before(self) -> int:
        """The version after which it begins."""
        return self.number * SPACING


def block_number(version: int) -> int:
    """Return the block that an event of this version is in."""
    return (version - 1) // SPACING


def last_version(number: int) -> int:
    """Return the version of the last event that comes into a block."""
    return (number + 1) * SPACING
