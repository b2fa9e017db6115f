"""One target in a process of its own, which ends with the fuzzer: the code must be watched from its import on."""

from __future__ import annotations

import asyncio
import sys
from zlib import crc32

import atheris
import pytest

from tests.fuzzing.redaction import ns_per_byte

INSTRUMENTED = ["projector.callbacks", "projector.domain.redaction", "projector.http", "projector.event_store"]

for name in [name for name in sys.modules if name.partition(".")[0] in ("projector", "tests")]:
    del sys.modules[name]  # the time is measured without the fuzzer's instruments, which take more than the code

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzzing.redaction import redaction
    from tests.fuzzing.targets import targets

TIMED_SHARE = 512
MAX_NS_PER_BYTE = 10_000
"""Far more than linear redaction takes, and far less than quadratic."""


def timed_redaction(data: bytes) -> None:
    redaction(data)
    if crc32(data) % TIMED_SHARE == 0:
        assert ns_per_byte(data[1:]) < MAX_NS_PER_BYTE


if __name__ == "__main__":
    _, name, *sys.argv = sys.argv
    every_target = {**targets(pytest.MonkeyPatch(), asyncio.new_event_loop()), "redaction": timed_redaction}
    atheris.Setup(sys.argv, every_target[name])
    atheris.Fuzz()
