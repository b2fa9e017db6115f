"""Verification: whether the history is whole. Whether the read model is what it says, `replay --check` tells."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from projector.domain.events import UndecodableEvent
from projector.event_store.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from projector.domain.events import Recorded
    from projector.event_store import EventStore

_BATCH_SIZE: Final = 2_000


class Digest(NamedTuple):
    """A hash of all events up to a position: each event's fingerprint, hashed with what those before it came to."""

    position: int
    value: bytes

    def __str__(self) -> str:
        """Return it as people keep it."""
        return f"{self.position}:{self.value.hex()}"


class VerificationResult(NamedTuple):
    """What was looked at: events, up to the newest when it began, of so many groups; and how many faults there were.

    `redacted` is how many events are no longer what they were when they were appended, because somebody is forgotten.
    """

    events: int
    groups: int
    redacted: int
    faults: int
    digest: Digest


def verify_history(
    store: EventStore,
    *,
    on_fault: Callable[[str], None],
    on_progress: Callable[[int], None] = lambda _: None,
    expected: Digest | None = None,
) -> VerificationResult:
    """Look at every event: positions and versions without a gap, states that decode, identities that stand for one.

    `on_fault` is called with a line about each fault, `on_progress` with the number of events of each batch. Others may
    append meanwhile. `expected` is an earlier digest.

    Raises StoreUnavailable.
    """
    head, redactions = store.head(), store.redactions()
    look = _Verifier(redactions, expected, on_fault)
    while look.position < head and (batch := store.read(look.position, min(_BATCH_SIZE, head - look.position))):
        for recorded in batch:
            look.at(recorded)
        on_progress(len(batch))
    if look.position < head:
        look.fault(f"behind position {look.position} comes nothing, and there must be {head}")
    if expected and expected.position > look.position:
        look.fault(f"there is no position {expected.position}, of which there is a digest")
    if store.redactions() != redactions:
        look.fault("somebody was forgotten meanwhile: the digest is of neither before nor after; verify again")
    if astray := store.dangling_identities():
        look.fault(f"{astray} identities of callbacks stand at no event, or at another's")
    return look.verified()


class _Verifier:
    """What was seen so far."""

    def __init__(self, redactions: Mapping[int, bytes], expected: Digest | None, found: Callable[[str], None]) -> None:
        self.position = 0
        self._redactions = redactions
        self._expected = expected
        self._found = found
        self._versions: dict[str, int] = {}
        self._digest = b""
        self._redacted = self._faults = 0

    def at(self, recorded: Recorded) -> None:
        """Look at the next event."""
        if recorded.position != self.position + 1:
            self.fault(f"behind position {self.position} comes {recorded.position}")
        self.position, event = recorded.position, recorded.event
        version = self._versions.get(event.group_id, 0) + 1
        if recorded.version != version:
            self.fault(f"position {self.position} has version {recorded.version} of its group, and must have {version}")
        self._versions[event.group_id] = recorded.version
        if isinstance(event, UndecodableEvent):
            self.fault(f"position {self.position} cannot be decoded: {event.reason}")
        was = self._redactions.get(self.position)
        self._redacted += was is not None
        self._digest = sha256(self._digest + (was or fingerprint(recorded))).digest()
        if self._expected and self._expected.position == self.position and self._expected.value != self._digest:
            self.fault(f"the events up to position {self.position} are not those of the digest")

    def fault(self, line: str) -> None:
        """Tell, and count, a fault."""
        self._faults += 1
        self._found(line)

    def verified(self) -> VerificationResult:
        """Return what was seen."""
        digest = Digest(self.position, self._digest)
        return VerificationResult(self.position, len(self._versions), self._redacted, self._faults, digest)
