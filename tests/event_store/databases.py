"""The databases that the contract of the event store is checked on. Another one joins with an entry in `OPENERS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.database.postgres_server import PostgresServer
from projector.event_store import postgres, sqlite
from projector.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from projector.event_store import EventStore
    from projector.event_store.quarantine import Quarantine

    Opener = Callable[..., tuple[EventStore, Quarantine]]

DEFAULTS = Settings()


def open_sqlite(
    path: str, environment: Mapping[str, str] | None = None, max_quarantined: int = DEFAULTS.max_quarantined
) -> tuple[EventStore, Quarantine]:
    return sqlite.open_sqlite(path, environment or {}, max_quarantined=max_quarantined)


def open_postgres(
    url: str,
    environment: Mapping[str, str] | None = None,
    max_quarantined: int = DEFAULTS.max_quarantined,
    pool_size: int = DEFAULTS.pool_size,
) -> tuple[EventStore, Quarantine]:
    return postgres.open_postgres(
        PostgresServer(url), environment or {}, max_quarantined=max_quarantined, pool_size=pool_size
    )


OPENERS: dict[str, Opener] = {"sqlite": open_sqlite, "postgresql": open_postgres}


class Database:
    """A place for one store at a time, which can be opened often, by name, and from other processes too."""

    def __init__(self, kind: str, locations: Iterator[str]) -> None:
        self.kind = kind
        self._locations = locations
        self._opened: list[EventStore] = []
        self.location = ""
        self.renew()

    def renew(self) -> None:
        """Begin a new, empty database."""
        self.close()
        self.location = next(self._locations)

    def others(self, count: int) -> list[str]:
        """Return where more new, empty databases are."""
        return [next(self._locations) for _ in range(count)]

    def open(self, environment: Mapping[str, str] | None = None) -> EventStore:
        return self.open_both(environment)[0]

    def open_both(self, environment: Mapping[str, str] | None = None) -> tuple[EventStore, Quarantine]:
        store, quarantine = OPENERS[self.kind](self.location, environment or {})
        self._opened.append(store)
        return store, quarantine

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()
