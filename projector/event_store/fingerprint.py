"""Hashes that show whether a stored event was changed. Repeats are recognised by identities, not by these."""

from hashlib import blake2b

import msgspec

from projector.domain.events import Recorded


def fingerprint(recorded: Recorded) -> bytes:
    """Return 32 bytes over the whole event and its place, independent of how it is stored; digests are made of them."""
    event = recorded.event
    content = (recorded.position, recorded.version, event.TOPIC, event)
    return blake2b(msgspec.json.encode(content, order="sorted"), digest_size=32).digest()


def mark_fingerprint(recorded: Recorded) -> bytes:
    """Return 16 bytes that identify the newest event in a read model, as every released version computes them."""
    event = recorded.event
    content = (event.group_id, recorded.version, event.recorded_at, event.callback)
    return blake2b(repr(content).encode(), digest_size=16).digest()
