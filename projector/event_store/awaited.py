"""A store that is away when a receiver starts: it is opened when it is back; until then callbacks go into the spool."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from projector.event_store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from projector.event_store import EventStore, Quarantine

_TRY_AGAIN_S: Final = 1.0


class Awaited:
    """Opens an event store and its quarantine for whoever first asks them something when they are back.

    `open_both` raises StoreUnavailable while they are away; so does every question then, without waiting if somebody
    else is trying already, or has just now.
    """

    def __init__(self, open_both: Callable[[], tuple[EventStore, Quarantine]], reason: str) -> None:
        self._open_both = open_both
        self._opened: tuple[EventStore, Quarantine] | None = None
        self._reason = reason
        self._tried_at = time.monotonic()
        self._lock = threading.Lock()

    def part(self, number: int) -> Any:
        """Return what stands for the event store, 0, or for the quarantine, 1."""
        return _Part(self, number)

    def both(self) -> tuple[EventStore, Quarantine]:
        """Return them. Raises StoreUnavailable."""
        if self._opened is None and self._lock.acquire(blocking=False):
            try:
                self._try()
            finally:
                self._lock.release()
        if self._opened is None:
            raise StoreUnavailable(self._reason)
        return self._opened

    def close(self) -> None:
        """Let go of every connection."""
        if self._opened is not None:
            self._opened[0].close()

    def _try(self) -> None:
        if self._opened is not None or time.monotonic() - self._tried_at < _TRY_AGAIN_S:
            return
        try:
            self._opened = self._open_both()
        except StoreUnavailable as error:
            self._reason = str(error)
            raise
        finally:
            self._tried_at = time.monotonic()


class _Part:
    """Passes every question on to what is awaited."""

    def __init__(self, awaited: Awaited, number: int) -> None:
        self._awaited = awaited
        self._number = number
        self.close = awaited.close

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            return getattr(self._awaited.both()[self._number], name)(*arguments, **named)

        return ask
