"""Every input that a fuzzer found worth keeping, again; `python -m scripts.fuzz --keep 100` finds more."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.fuzzing.targets import targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS = Path(__file__).with_name("corpus")


@pytest.fixture(scope="module")
def every_target() -> Iterator[dict[str, Callable[[bytes], None]]]:
    with pytest.MonkeyPatch.context() as patch, closing(asyncio.new_event_loop()) as loop:
        yield targets(patch, loop)
    structlog.reset_defaults()


@pytest.mark.parametrize("name", ["translation", "requests", "connections"])
def test_what_a_fuzzer_found_breaks_nothing(every_target: dict[str, Callable[[bytes], None]], name: str) -> None:
    found = sorted((CORPUS / name).iterdir())
    assert len(found) >= 50
    for file in found:
        try:
            every_target[name](file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file} broke it") from error
