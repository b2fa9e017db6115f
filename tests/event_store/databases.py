"""The databases that the contract of the event store is checked on. Another one joins with an entry in `OPENERS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.event_store.sqlite import open_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from projector.event_store import EventStore, Quarantine

    Opener = Callable[[str, Mapping[str, str]], tuple[EventStore, Quarantine]]

OPENERS: dict[str, Opener] = {"sqlite": open_sqlite}


class Database:
    """A place for one store at a time, which can be opened often, by name, and from other processes too."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self._directory = directory
        self._opened: list[EventStore] = []
        self.location = ""
        self.renew()

    def renew(self) -> None:
        """Begin a new, empty database."""
        self.close()
        self.location = str(self._directory / f"events{len(list(self._directory.iterdir()))}.db")

    def open(self, environment: Mapping[str, str] | None = None) -> EventStore:
        return self.open_both(environment)[0]

    def open_both(self, environment: Mapping[str, str] | None = None) -> tuple[EventStore, Quarantine]:
        store, quarantine = OPENERS[self.kind](self.location, environment or {})
        self._opened.append(store)
        return store, quarantine

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()
