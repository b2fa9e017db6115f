"""One target in a process of its own, which ends with the fuzzer: the code must be watched from its import on."""

from __future__ import annotations

import asyncio
import sys
from zlib import crc32

import atheris
import pytest

INSTRUMENTED = ["projector.callbacks", "projector.domain.redaction", "projector.http", "projector.event_store"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzzing.redaction import ns_per_byte, redaction
    from tests.fuzzing.targets import targets

TIMED_SHARE = 512
MAX_NS_PER_BYTE = 20_000
"""Far more than linear redaction takes under the fuzzer, and far less than quadratic."""


def timed_redaction(data: bytes) -> None:
    redaction(data)
    if crc32(data) % TIMED_SHARE == 0:
        assert ns_per_byte(data[1:]) < MAX_NS_PER_BYTE


if __name__ == "__main__":
    _, name, *sys.argv = sys.argv
    every_target = {**targets(pytest.MonkeyPatch(), asyncio.new_event_loop()), "redaction": timed_redaction}
    atheris.Setup(sys.argv, every_target[name])
    atheris.Fuzz()
