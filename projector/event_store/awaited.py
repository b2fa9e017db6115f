"""A store that is away when a receiver starts: it is opened when it is back; until then callbacks go into the spool."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from projector.event_store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from projector.event_store import EventStore, Quarantine
    from projector.event_store.mapper import EventMapper

_RETRY_S: Final = 1.0


class Awaited:
    """Opens an event store and its quarantine for whoever first asks them something when they are back.

    `open_both` raises StoreUnavailable while they are away; so does every question to `events` and to `quarantine`
    then, without waiting if somebody else is trying already, or has just now.
    """

    def __init__(
        self, open_both: Callable[[], tuple[EventStore, Quarantine]], mapper: EventMapper, reason: str
    ) -> None:
        self.events: Any = _Part(lambda: self._both()[0], mapper=mapper, close=self._close)
        self.quarantine: Any = _Part(lambda: self._both()[1])
        self._open_both = open_both
        self._opened: tuple[EventStore, Quarantine] | None = None
        self._reason = reason
        self._tried_at = time.monotonic()
        self._lock = threading.Lock()

    def _both(self) -> tuple[EventStore, Quarantine]:
        if self._opened is None and self._lock.acquire(blocking=False):
            try:
                self._try()
            finally:
                self._lock.release()
        if self._opened is None:
            raise StoreUnavailable(self._reason)
        return self._opened

    def _try(self) -> None:
        if self._opened is not None or time.monotonic() - self._tried_at < _RETRY_S:
            return
        try:
            self._opened = self._open_both()
        except StoreUnavailable as error:
            self._reason = str(error)
        finally:
            self._tried_at = time.monotonic()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()


class _Part:
    """Passes every question on to what is awaited, but for what is known without it."""

    def __init__(self, awaited: Callable[[], Any], **known: Any) -> None:
        self._awaited = awaited
        vars(self).update(known)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            return getattr(self._awaited(), name)(*arguments, **named)

        return ask
