"""Blocks: runs of equally many events of a stream, numbered from 0. The state after each full block is stored."""

from typing import Final, NamedTuple

SIZE: Final = 512
"""Events in a block. A state as of any moment is folded from about as many events, however long the stream is."""


class Block(NamedTuple):
    """The events of a block that exist so far: their earliest and latest effective time, in ms since 1970 UTC.

    `last_version` and `last_position` are those of the newest event.
    """

    group_id: str
    number: int
    earliest_at: int
    latest_at: int
    last_version: int
    last_position: int

    @property
    def is_complete(self) -> bool:
        return self.last_version == last_version(self.number)

    @property
    def before(self) -> int:
        """The version of the last event before the block, 0 for the first block."""
        return self.number * SIZE


def block_number(version: int) -> int:
    """Return the number of the block that contains the event of this version."""
    return (version - 1) // SIZE


def last_version(number: int) -> int:
    """Return the version of the last event of a full block."""
    return (number + 1) * SIZE
