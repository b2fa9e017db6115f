"""Callbacks in: verify, translate, append, acknowledge. Plain ASGI: this is the door that must be fast."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec
import structlog
from anyio import to_thread

from projector.callbacks import (
    Forbidden,
    Unreadable,
    authenticate,
    carries_group_state,
    command_of,
    parameters,
    translate,
)
from projector.clock import now_ms
from projector.event_store import Candidate, StoreUnavailable
from projector.event_store.group_commit import GroupCommit, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from projector.http.metrics import Metrics
    from projector.settings import Settings

_OK: Final = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}'
_Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
_RETRY: Final = ((b"retry-after", b"1"),)
_CLOSE: Final = ((b"connection", b"close"),)

log = structlog.get_logger(__name__)


MAX_BUFFERED_BODY_BYTES: Final = 16 * 1024 * 1024
"""The bodies of all requests that are not answered yet: those of some thirty thousand callbacks of the usual size."""


class _TooLarge(Exception):
    """A body is larger than is taken."""


class _NoRoom(Exception):
    """All bodies together are larger than is held."""


class _Gone(Exception):
    """The sender hung up before its body was whole."""


class _Keeps(Protocol):
    """What takes what could not be read: the quarantine, or who forwards to it."""

    @property
    def keep(self) -> Callable[..., int]:
        """`Quarantine.keep`."""


class _BodySize:
    """How much of a body is there."""

    size = 0


class Ingest:
    """The ASGI application behind `POST /callback`, or whatever its `path` is.

    A success is answered when the event is durable.
    """

    def __init__(self, settings: Settings, commit: GroupCommit, quarantine: _Keeps, metrics: Metrics) -> None:
        assert settings.sdk_app_id is not None
        self.path = settings.callback_path
        self._sdk_app_id = settings.sdk_app_id
        self._tokens = settings.callback_tokens
        self._max_body_bytes = settings.max_body_bytes
        self._commit = commit
        self._quarantine = quarantine
        self._metrics = metrics
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with the vendor's three fields."""
        try:
            await self._handle(scope, receive, send)
        except Exception:
            log.exception("a callback met something unexpected")
            await _answer(send, 500, "something unexpected happened; the log of the server says what")

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await _answer(send, 405, "callbacks are POSTed", ((b"allow", b"POST"),))
            return
        query, received_at = parameters(scope["query_string"]), now_ms()
        held = _BodySize()
        try:
            authenticate(query, sdk_app_id=self._sdk_app_id, tokens=self._tokens, now_ms=received_at)
            body = await self._read(scope, receive, held)
            await self._take(scope, send, query, body, received_at)
        except Forbidden as error:
            self._note("refused", scope, str(error))
            await _answer(send, 403, str(error))
        except _TooLarge:
            reason = f"the body is larger than {self._max_body_bytes} bytes"
            self._note("too_large", scope, reason)
            await _answer(send, 413, reason, _CLOSE)
        except _NoRoom:
            await self._unavailable(scope, send, "more is being received at once than is held", _CLOSE)
        except _Gone:
            return
        finally:
            self._held_bytes -= held.size

    async def _read(self, scope: Scope, receive: Receive, held: _BodySize) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_body_bytes:
                raise _TooLarge
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            chunk = message.get("body", b"")
            chunks.append(chunk)
            held.size += len(chunk)
            self._held_bytes += len(chunk)
            if held.size > self._max_body_bytes:
                raise _TooLarge
            if self._held_bytes > MAX_BUFFERED_BODY_BYTES:
                raise _NoRoom
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _take(self, scope: Scope, send: Send, query: dict[str, str], body: bytes, received_at: int) -> None:
        platform = query.get("optplatform")
        try:
            command = command_of(query, body)
            if not carries_group_state(command):
                self._metrics.count_ignored(command)
                await _answer(send, 200)
                return
            translation = translate(command, body, platform=platform, received_at=received_at)
        except Unreadable as error:
            await self._keep_unreadable(scope, send, query, body, received_at, str(error))
            return
        except Exception as error:
            log.warning("reading a callback met something unexpected", exc_info=True)
            reason = f"reading it met something unexpected: {type(error).__name__}"
            await self._keep_unreadable(scope, send, query, body, received_at, reason)
            return
        if translation.from_future:
            self._metrics.future_event_times.inc()
            log.warning("an EventTime from the future was not believed", command=command)
        with self._metrics.append_seconds.time():
            try:
                appended = await self._commit.append(Candidate(translation.event, translation.identity))
            except (StoreUnavailable, Overloaded) as error:
                await self._unavailable(scope, send, str(error) or "too many callbacks wait to be stored")
                return
        if not appended.position:
            self._metrics.count("spooled")
            await _answer(send, 200)
            return
        self._metrics.count("repeated" if appended.repeated else "recorded")
        await _answer(send, 200, headers=((b"projector-position", b"%d" % appended.position),))

    async def _keep_unreadable(
        self, scope: Scope, send: Send, query: dict[str, str], body: bytes, received_at: int, reason: str
    ) -> None:
        keep = partial(
            self._quarantine.keep,
            body=body,
            reason=reason,
            command=query.get("callbackcommand"),
            platform=query.get("optplatform"),
            received_at=received_at,
        )
        try:
            quarantine_id = await to_thread.run_sync(keep)
        except StoreUnavailable as error:
            await self._unavailable(scope, send, str(error))
            return
        self._note("quarantined", scope, reason, quarantine_id=quarantine_id)
        await _answer(send, 400, reason)

    async def _unavailable(self, scope: Scope, send: Send, reason: str, headers: _Headers = ()) -> None:
        self._note("unavailable", scope, reason)
        await _answer(send, 503, reason, (*_RETRY, *headers))

    def _note(self, result: str, scope: Scope, reason: str, **more: Any) -> None:
        self._metrics.count(result)
        client = scope.get("client")
        log.warning("callback not recorded", result=result, reason=reason, client=client and client[0], **more)


async def _answer(send: Send, status: int, reason: str = "", headers: _Headers = ()) -> None:
    body = _OK
    if status != 200:
        body = msgspec.json.encode({"ActionStatus": "FAIL", "ErrorInfo": reason, "ErrorCode": 1})
    fixed = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
