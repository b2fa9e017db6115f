"""Verification of the history: that it is complete and unchanged. `replay --check` verifies the read model."""

from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

from projector.domain.events import Recorded, UndecodableEvent
from projector.event_store import EventStore
from projector.event_store.fingerprint import fingerprint

_BATCH_SIZE: Final = 2_000


class Digest(NamedTuple):
    """A hash of all events up to a position: each fingerprint is hashed with the hash of the events before it."""

    position: int
    value: bytes

    def __str__(self) -> str:
        return f"{self.position}:{self.value.hex()}"


class VerificationResult(NamedTuple):
    """The numbers of events, of groups, and of faults among them.

    `redacted` is the number of events that were changed after they were appended, because users were forgotten.
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
    """Check that positions and versions have no gaps, that every event decodes, and that identities match events.

    Events appended after the start are left out. `on_fault` is called with a line about each fault, `on_progress` with
    the number of events of each batch. `expected` is an earlier digest, which the history must still match.

    Raises StoreUnavailable.
    """
    head, verifier = store.head(), _Verifier(expected, on_fault)
    while (after := verifier.position) < head and (batch := store.read(after, min(_BATCH_SIZE, head - after))):
        # Read after the events, so that those redacted at this moment are among them.
        redactions = store.redactions(after, batch[-1].position)
        for recorded in batch:
            verifier.check(recorded, redactions.get(recorded.position))
        on_progress(len(batch))
    if verifier.position < head:
        verifier.report(f"no events follow position {verifier.position}; the newest must be at position {head}")
    if expected and expected.position > verifier.position:
        verifier.report(f"the digest is of {expected.position} events, but there are only {verifier.position}")
    for line in store.damage():
        verifier.report(f"the database is damaged: {line}")
    if dangling := store.dangling_identities():
        verifier.report(f"callback identities with no event, or with an event of another identity: {dangling}")
    return verifier.result()


class _Verifier:
    """Checks one event after the other, and counts."""

    def __init__(self, expected: Digest | None, on_fault: Callable[[str], None]) -> None:
        self.position = 0
        self._expected = expected
        self._on_fault = on_fault
        self._versions: dict[str, int] = {}
        self._digest = b""
        self._redacted = self._faults = 0

    def check(self, recorded: Recorded, original: bytes | None) -> None:
        """Check an event; `original` is the fingerprint that it had before it was redacted."""
        self._check_position(recorded)
        self._check_version(recorded)
        if isinstance(recorded.event, UndecodableEvent):
            self.report(f"position {self.position} cannot be decoded: {recorded.event.reason}")
        self._redacted += original is not None
        self._check_digest(original or fingerprint(recorded))

    def report(self, fault: str) -> None:
        self._faults += 1
        self._on_fault(fault)

    def result(self) -> VerificationResult:
        digest = Digest(self.position, self._digest)
        return VerificationResult(self.position, len(self._versions), self._redacted, self._faults, digest)

    def _check_position(self, recorded: Recorded) -> None:
        first, last = self.position + 1, recorded.position - 1
        if recorded.position != first:
            missing = f"{first} is missing" if first == last else f"{first} to {last} are missing"
            self.report(f"position {recorded.position} follows position {self.position}; {missing}")
        self.position = recorded.position

    def _check_version(self, recorded: Recorded) -> None:
        group_id = recorded.event.group_id
        expected = self._versions.get(group_id, 0) + 1
        if recorded.version != expected:
            self.report(f"position {self.position} has version {recorded.version} of its group, not {expected}")
        self._versions[group_id] = recorded.version

    def _check_digest(self, original: bytes) -> None:
        self._digest = sha256(self._digest + original).digest()
        if self._expected and self._expected.position == self.position and self._expected.value != self._digest:
            self.report(f"the events up to position {self.position} do not match the expected digest")
