"""The board: shared memory in which each process of one `serve` reads how the others are."""

import mmap
from collections.abc import Iterable
from typing import Final

import msgspec

_SLOT_BYTES: Final = 1024
_HEADER_BYTES: Final = 8
_MAX_FAILURE: Final = 200
"""Characters of a failure, which takes up to four bytes each."""

_MAX_TRIES: Final = 1_000


class ProcessState(msgspec.Struct, frozen=True):
    """The id of a process, null while it is not running, how often it was started again, and how it ended last."""

    pid: int | None = None
    restarts: int = 0
    last_end: str | None = None


class Board:
    """For each process, by name, its state, and the reason why it does not do its work, if so.

    It is shared with all processes that are forked later. The supervisor writes states, each process its own failure.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        slots = [_Slot() for _ in self._names * 2]
        self._states = dict(zip(self._names, slots, strict=False))
        self._failures = dict(zip(self._names, slots[len(self._names) :], strict=True))

    def states(self) -> dict[str, ProcessState]:
        return {
            name: msgspec.json.decode(written, type=ProcessState) if (written := slot.read()) else ProcessState()
            for name, slot in self._states.items()
        }

    def save_state(self, name: str, state: ProcessState) -> None:
        self._states[name].write(msgspec.json.encode(state))

    def failure(self, name: str) -> str | None:
        """Return why a process does not do its work; None if it does, or is not known."""
        slot = self._failures.get(name)
        return slot.read().decode() or None if slot else None

    def save_failure(self, name: str, failure: str | None) -> None:
        self._failures[name].write((failure or "")[:_MAX_FAILURE].encode(errors="replace"))

    def complaints(self) -> list[str]:
        """Return a sentence for each process that is not running."""
        return [
            f"the {name} process {state.last_end or 'has not started'}; it is started again"
            for name, state in self.states().items()
            if state.pid is None
        ]


class _Slot:
    """Bytes that one process writes and others read. A number that is odd during a write reveals a torn read."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLOT_BYTES)

    def write(self, data: bytes) -> None:
        number = int.from_bytes(self._memory[:4]) | 1
        self._memory[:4] = number.to_bytes(4)
        self._memory[4:_HEADER_BYTES] = len(data).to_bytes(4)
        self._memory[_HEADER_BYTES : _HEADER_BYTES + len(data)] = data
        self._memory[:4] = ((number + 1) % 2**32).to_bytes(4)

    def read(self) -> bytes:
        """Return what was written last, nothing if the writer died while it wrote."""
        for _ in range(_MAX_TRIES):
            before = self._memory[:]
            if before[3] % 2 == 0 and self._memory[:4] == before[:4]:
                return before[_HEADER_BYTES : _HEADER_BYTES + int.from_bytes(before[4:_HEADER_BYTES])]
        return b""
