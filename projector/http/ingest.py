"""Receives callbacks: authenticate, translate, append, acknowledge. Plain ASGI, since this path has to be fast."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import structlog
from anyio import to_thread
from starlette.types import Receive, Scope, Send

from projector.callbacks import (
    Forbidden,
    Translation,
    Unreadable,
    authenticate,
    carries_group_state,
    command_of,
    parameters,
    translate,
)
from projector.clock import now_ms
from projector.domain.limits import count_oversized
from projector.event_store import Candidate, StoreUnavailable
from projector.event_store.group_commit import GroupCommit, Overloaded
from projector.event_store.quarantine import UnreadableRequest
from projector.http.metrics import Metrics
from projector.http.repeated_warnings import RepeatedWarnings
from projector.logs import Condition
from projector.settings import Settings

MAX_BUFFERED_BODY_BYTES: Final = 16 * 1024 * 1024
"""The limit for the bodies of all requests in flight, enough for some 30,000 callbacks of the usual size."""

_Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
_ALLOW: Final = ((b"allow", b"POST"),)
_RETRY: Final = ((b"retry-after", b"1"),)
_CLOSE: Final = ((b"connection", b"close"),)
_OK: Final = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}'


def _headers_of(body: bytes) -> _Headers:
    return (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))


_OK_HEADERS: Final = _headers_of(_OK)

log = structlog.get_logger(__name__)


class _TooLarge(Exception):
    """The body is larger than allowed."""


class _BufferFull(Exception):
    """The bodies of all requests together are larger than allowed."""


class _Disconnected(Exception):
    """The sender disconnected before its body was complete."""


class _BodySize:
    """The number of bytes of a body received so far."""

    bytes = 0


class _Reply(NamedTuple):
    """A response with the vendor's three fields; `reason` is empty on success."""

    status: int = 200
    reason: str = ""
    headers: _Headers = ()

    async def send(self, send: Send) -> None:
        body, headers = _OK, _OK_HEADERS
        if self.reason:
            body = msgspec.json.encode({"ActionStatus": "FAIL", "ErrorInfo": self.reason, "ErrorCode": 1})
            headers = _headers_of(body)
        await send({"type": "http.response.start", "status": self.status, "headers": (*headers, *self.headers)})
        await send({"type": "http.response.body", "body": body})


_ACKNOWLEDGED: Final = _Reply()


class Ingest:
    """The ASGI application for the callback path. It acknowledges a callback once its event is durable."""

    def __init__(
        self,
        settings: Settings,
        commit: GroupCommit,
        keep_unreadable: Callable[[UnreadableRequest], int | None],
        metrics: Metrics,
    ) -> None:
        assert settings.sdk_app_id is not None
        self.path = settings.callback_path
        self._sdk_app_id = settings.sdk_app_id
        self._tokens = settings.callback_tokens
        self._max_body_bytes = settings.max_body_bytes
        self._commit = commit
        self._keep_in_quarantine = keep_unreadable
        self._metrics = metrics
        self._buffered_bytes = 0
        self._warnings = RepeatedWarnings(log)
        self._unavailable_store = Condition(log, begins="database unavailable", ends="database available again")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = _BodySize()
        try:
            reply = await self._receive(scope, receive, size)
            await reply.send(send)
        except _Disconnected:
            pass
        except Exception:
            log.exception("unexpected error while receiving a callback")
            await _Reply(500, "internal error; see the log of the server").send(send)
        finally:
            self._buffered_bytes -= size.bytes

    def close(self) -> None:
        """Log what was held back."""
        self._warnings.close()

    async def _receive(self, scope: Scope, receive: Receive, size: _BodySize) -> _Reply:
        if scope["method"] != "POST":
            return _Reply(405, "callbacks must be sent by POST", _ALLOW)
        query, received_at = parameters(scope["query_string"]), now_ms()
        try:
            authenticate(query, sdk_app_id=self._sdk_app_id, tokens=self._tokens, now_ms=received_at)
            body = await self._read(scope, receive, size)
        except Forbidden as error:
            return self._reject(scope, "refused", _Reply(403, str(error)))
        except _TooLarge:
            reason = f"the body is larger than {self._max_body_bytes} bytes"
            return self._reject(scope, "too_large", _Reply(413, reason, _CLOSE))
        except _BufferFull:
            return self._unavailable(scope, "too many request bytes in flight", _CLOSE)
        return await self._record(scope, query, body, received_at)

    async def _read(self, scope: Scope, receive: Receive, size: _BodySize) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._max_body_bytes:
                raise _TooLarge
        chunks: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            chunk = message.get("body", b"")
            chunks.append(chunk)
            size.bytes += len(chunk)
            self._buffered_bytes += len(chunk)
            if size.bytes > self._max_body_bytes:
                raise _TooLarge
            if self._buffered_bytes > MAX_BUFFERED_BODY_BYTES:
                raise _BufferFull
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _record(self, scope: Scope, query: dict[str, str], body: bytes, received_at: int) -> _Reply:
        try:
            command = command_of(query, body)
            if not carries_group_state(command):
                self._metrics.count_ignored(command)
                return _ACKNOWLEDGED
            translation = translate(command, body, platform=query.get("optplatform"), received_at=received_at)
        except Unreadable as error:
            return await self._keep_unreadable(scope, query, body, received_at, str(error))
        except Exception as error:
            log.warning("unexpected error while reading a callback", exc_info=True)
            reason = f"unexpected error while reading the callback: {type(error).__name__}"
            return await self._keep_unreadable(scope, query, body, received_at, reason)
        if translation.from_future:
            self._metrics.future_event_times.inc()
            self._warnings.warn("EventTime is in the future; using the time of receipt", command=command)
        return await self._append(scope, translation)

    async def _append(self, scope: Scope, translation: Translation) -> _Reply:
        started = perf_counter()
        try:
            appended = await self._commit.append(Candidate(translation.event, translation.identity))
        except Overloaded:
            return self._unavailable(scope, "too many callbacks in flight")
        except StoreUnavailable as error:
            self._unavailable_store.met(str(error))
            return self._unavailable(scope, str(error))
        finally:
            self._metrics.append_seconds.observe(perf_counter() - started)
        self._unavailable_store.over()
        if not appended.repeated and (oversized := count_oversized(translation.event)):
            self._metrics.oversized_values.inc(oversized)
        if appended.position is None:
            self._metrics.count("spooled")
            return _ACKNOWLEDGED
        self._metrics.count("repeated" if appended.repeated else "recorded")
        return _Reply(headers=((b"projector-position", b"%d" % appended.position),))

    async def _keep_unreadable(
        self, scope: Scope, query: dict[str, str], body: bytes, received_at: int, reason: str
    ) -> _Reply:
        request = UnreadableRequest(body, reason, query.get("callbackcommand"), query.get("optplatform"), received_at)
        try:
            quarantine_id = await to_thread.run_sync(self._keep_in_quarantine, request)
        except StoreUnavailable as error:
            return self._unavailable(scope, str(error))
        return self._reject(scope, "quarantined", _Reply(400, reason), quarantine_id=quarantine_id)

    def _unavailable(self, scope: Scope, reason: str, headers: _Headers = ()) -> _Reply:
        return self._reject(scope, "unavailable", _Reply(503, reason, (*_RETRY, *headers)))

    def _reject(self, scope: Scope, result: str, reply: _Reply, **details: Any) -> _Reply:
        """Count and log a callback that is not acknowledged."""
        self._metrics.count(result)
        client = scope.get("client")
        self._warnings.warn(
            "callback rejected", result=result, reason=reply.reason, client=client and client[0], **details
        )
        return reply
