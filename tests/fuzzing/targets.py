"""Targets for fuzzing: each accepts any bytes, and raises if a promise is broken.

`python -m scripts.fuzz` runs them on millions of inputs; `test_corpus.py` on the inputs that were kept.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote

import structlog
import uvicorn
from uvicorn.server import ServerState

from projector.callbacks import Unreadable, carries_group_state, command_of, translate
from projector.event_store import Appended, StoreUnavailable
from projector.event_store.mapper import EventMapper
from projector.http import ingest
from projector.http.app import Components, create_app
from projector.http.metrics import Metrics
from projector.http.protocol import GuardedProtocol
from projector.processes.board import Board
from projector.settings import Settings
from tests.callbacks.payloads import COMMANDS
from tests.fuzzing.redaction import redaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pytest

    from projector.event_store import Candidate
    from projector.event_store.quarantine import UnreadableRequest

NOW: Final = 1_700_000_000_000
APP_ID: Final = 1400000000
MAX_BODY: Final = 2_000
_STEPS: Final = 30
"""After so many turns of the loop, a task can only be waiting for the rest of a request, which does not come."""

_MAPPER: Final = EventMapper(None, None)  # type: ignore[arg-type]


def translation(data: bytes) -> None:
    """The first byte selects the command, the rest is a body. It is refused, or becomes an event that can be stored."""
    if not data:
        return
    named, body = COMMANDS[data[0] % len(COMMANDS)], data[1:]
    try:
        command = command_of({"callbackcommand": named}, body)
        if not carries_group_state(command):
            return
        event, identity, from_future = translate(command, body, platform=None, received_at=NOW)
    except Unreadable:
        return
    assert event.callback.encode() == body, "the body was changed"
    assert _MAPPER.to_domain_event(_MAPPER.to_stored_event(event)) == event, "the event was changed by storing it"
    again = translate(command, body, platform=None, received_at=NOW)
    assert (again.event, again.identity, again.from_future) == (event, identity, from_future)
    assert event.occurred_at <= NOW + 5 * 60 * 1000, "a time in the future was accepted"


class _Transport(asyncio.Transport):
    """A connection that collects the bytes of the responses."""

    def __init__(self) -> None:
        super().__init__()
        self.received = b""
        self.gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.received += bytes(data)

    def close(self) -> None:
        self.gone = True

    def abort(self) -> None:
        self.gone = True

    def is_closing(self) -> bool:
        return self.gone

    def pause_reading(self) -> None:
        """Do nothing: everything has been sent already."""

    def resume_reading(self) -> None:
        """Do nothing, as above."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 1024)}.get(name, default)


class Receiver:
    """The application behind its own HTTP protocol, with lists instead of databases."""

    def __init__(self, patch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop) -> None:
        structlog.configure(processors=[self._log], cache_logger_on_first_use=False)
        patch.setattr(ingest, "to_thread", self)  # all is done when nothing more happens
        self.unexpected: list[str] = []
        self.events: list[str] = []
        self.kept: list[bytes] = []
        self._loop = loop
        metrics = Metrics(self._no_health, None, Board(()))
        settings = Settings(sdk_app_id=APP_ID, max_body_bytes=MAX_BODY)
        callbacks = ingest.Ingest(settings, self, self.keep, metrics)  # type: ignore[arg-type]
        app = create_app(Components(self._no_health, metrics, self._no_health, Board(()), ingest=callbacks))
        self._config = uvicorn.Config(app, http=GuardedProtocol, lifespan="off", log_config=None, server_header=False)
        self._config.load()

    async def append(self, candidate: Candidate) -> Appended:
        """Stand in for group commit."""
        self.events.append(candidate.event.callback)
        return Appended(len(self.events), repeated=False)

    def keep(self, request: UnreadableRequest) -> int:
        """Stand in for the quarantine."""
        self.kept.append(request.body)
        return len(self.kept)

    async def run_sync(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Stand in for threads."""
        return work(*arguments)

    def talk(self, sent: Iterable[bytes]) -> bytes:
        """Return the responses on a connection that is sent these pieces."""
        self.events.clear()
        self.kept.clear()
        return self._loop.run_until_complete(self._talk(sent))

    def any_bytes(self, data: bytes) -> None:
        """The bytes are sent in two pieces: no response is a server error, and nothing fails unnoticed."""
        half = len(data) // 2
        self._check(self.talk([data[:half], data[half:]]))

    def any_request(self, data: bytes) -> None:
        """The first byte selects a command; then a query string, a line feed, and a body, kept if it is authentic."""
        if not data:
            return
        query, _, body = data[1:].partition(b"\n")
        named = quote(COMMANDS[data[0] % len(COMMANDS)])
        target = f"/callback?SdkAppid={APP_ID}&CallbackCommand={named}&{quote(query, safe='&=%+')}"
        head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        statuses = self._check(self.talk([head, body]))
        assert len(statuses) == 1, "not one response to one request"
        given = {name.lower(): value for name, value in parse_qsl(target.partition("?")[2], keep_blank_values=True)}
        if given["sdkappid"] != str(APP_ID):
            assert statuses == [403]
        elif len(body) > MAX_BODY:
            assert statuses == [413]
        elif statuses == [200]:
            recorded = [event.encode() for event in self.events]
            expected = [body] if carries_group_state(_command(given, body)) else []
            assert recorded == expected, "acknowledged, but the event was not recorded"
        else:
            assert statuses == [400]
            assert self.kept == [body], "authentic, refused, but not kept"

    def _check(self, received: bytes) -> list[int]:
        assert not self.unexpected, self.unexpected
        statuses = [int(status) for status in re.findall(rb"(?:^|\n|})HTTP/1\.1 (\d{3})", received)]
        assert all(status < 500 for status in statuses), received
        return statuses

    async def _talk(self, sent: Iterable[bytes]) -> bytes:
        transport, state = _Transport(), ServerState()
        self._loop.set_exception_handler(lambda _, context: self.unexpected.append(str(context)))
        protocol = GuardedProtocol(self._config, state, {}, self._loop)
        protocol.connection_made(transport)
        for piece in sent:
            if not transport.gone:
                protocol.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(_STEPS):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        if state.tasks:
            await asyncio.wait(state.tasks)
        return transport.received

    def _log(self, _: Any, name: str, line: dict[str, Any]) -> Any:
        if name in ("error", "exception", "critical"):
            self.unexpected.append(str(line))
        raise structlog.DropEvent

    def _no_health(self) -> Any:
        raise StoreUnavailable("there is no store here")


def _command(given: dict[str, str], body: bytes) -> str:
    return str(
        json.loads(body.decode(errors="replace"), strict=False).get("CallbackCommand") or given.get("callbackcommand")
    )


def targets(patch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop) -> dict[str, Callable[[bytes], None]]:
    """Return every target by its name."""
    receiver = Receiver(patch, loop)
    return {
        "translation": translation,
        "redaction": redaction,
        "requests": receiver.any_request,
        "connections": receiver.any_bytes,
    }
