"""Every input kept from fuzzing, run again; `python -m scripts.fuzz --keep 100` adds more."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from projector.http import ingest
from tests.fuzzing.targets import APP_ID, Receiver, targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS = Path(__file__).with_name("corpus")


@pytest.fixture(scope="module")
def every_target() -> Iterator[dict[str, Callable[[bytes], None]]]:
    with pytest.MonkeyPatch.context() as patch, closing(asyncio.new_event_loop()) as loop:
        yield targets(patch, loop)
    structlog.reset_defaults()


@pytest.mark.parametrize("name", ["translation", "requests", "connections"])
def test_no_input_kept_from_fuzzing_breaks_anything(
    every_target: dict[str, Callable[[bytes], None]], name: str
) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) >= 50
    for file in inputs:
        try:
            every_target[name](file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file} broke it") from error


def test_a_callback_that_meets_a_fault_of_ours_is_kept_for_a_version_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with closing(asyncio.new_event_loop()) as loop:
        receiver = Receiver(monkeypatch, loop)
        monkeypatch.setattr(ingest, "translate", fault)
        body = b'{"CallbackCommand":"Group.CallbackAfterGroupFull","GroupId":"g"}'
        target = f"/callback?SdkAppid={APP_ID}"
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert receiver.talk([head, body]).startswith(b"HTTP/1.1 400")
        assert receiver.kept == [body]
    structlog.reset_defaults()
