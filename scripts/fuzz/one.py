"""One target in a process of its own, which ends with the fuzzer: the code must be watched from its import on."""

from __future__ import annotations

import asyncio
import sys

import atheris
import pytest

with atheris.instrument_imports(include=["projector.callbacks", "projector.http", "projector.event_store"]):
    from tests.fuzzing.targets import targets

if __name__ == "__main__":
    _, name, *sys.argv = sys.argv
    target = targets(pytest.MonkeyPatch(), asyncio.new_event_loop())[name]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
