"""Verification: whether the history is whole. Whether the read model is what it says, `replay --check` tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from projector.domain.events import UndecodableEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from projector.event_store import EventStore

_AT_ONCE: Final = 2_000


class Verified(NamedTuple):
    """What was looked at: events, up to the newest when it began, of so many groups; and how many faults there were."""

    events: int
    groups: int
    faults: int


def verify_log(
    store: EventStore, *, found: Callable[[str], None], advanced: Callable[[int], None] = lambda _: None
) -> Verified:
    """Look at every event: positions and versions without a gap, states that decode, identities that stand for one.

    `found` is told each fault in a line, `advanced` how many more events were looked at. Others may append meanwhile.

    Raises StoreUnavailable.
    """
    head, position, faults = store.head(), 0, 0
    versions: dict[str, int] = {}

    def fault(line: str) -> None:
        nonlocal faults
        faults += 1
        found(line)

    while position < head and (batch := store.read(position, min(_AT_ONCE, head - position))):
        for recorded in batch:
            if recorded.position != position + 1:
                fault(f"behind position {position} comes {recorded.position}")
            position, event = recorded.position, recorded.event
            expected = versions.get(event.group_id, 0) + 1
            if recorded.version != expected:
                fault(f"position {position} has version {recorded.version} of its group, and must have {expected}")
            versions[event.group_id] = recorded.version
            if isinstance(event, UndecodableEvent):
                fault(f"position {position} cannot be decoded: {event.reason}")
        advanced(len(batch))
    if position < head:
        fault(f"behind position {position} comes nothing, and there must be {head}")
    if astray := store.identities_astray():
        fault(f"{astray} identities of callbacks stand at no event, or at another's")
    return Verified(position, len(versions), faults)
