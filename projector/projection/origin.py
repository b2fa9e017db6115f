"""Origin: whether a read model was built from the events that are in the store now."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from projector.event_store import EventStore
from projector.projection import mark_of
from projector.read_model import NoReadModel, Queries
from projector.read_model.query_session import QuerySession
from projector.read_model.rows import Mark

OTHER_EVENTS: Final = "it was built from other events: the event store was restored from a backup"


def is_built_from(store: EventStore, mark: Mark | None) -> bool:
    """Tell whether the newest event in a read model is the one at its position in the store.

    A redacted event is taken to be the same. Raises StoreUnavailable.
    """
    if mark is None or mark in map(mark_of, store.read(mark.position - 1, 1)):
        return True
    return store.is_redacted(mark.position)


def require_built_from(store: EventStore, mark: Mark | None) -> None:
    """Raise NoReadModel if a read model was built from other events, or from more. Raises StoreUnavailable."""
    if not is_built_from(store, mark):
        raise NoReadModel(f"the read model cannot be used: {OTHER_EVENTS}; a running worker rebuilds it")


class QueriesOfStore:
    """`Queries` that open no session before the read model is known to be built from the events of a store."""

    def __init__(self, queries: Queries, store: EventStore) -> None:
        self._queries = queries
        self._store = store
        self._is_checked = False

    @contextmanager
    def session(self) -> Iterator[QuerySession]:
        """Open a session. Raises StoreUnavailable too, before the first one."""
        with self._queries.session() as session:
            if not self._is_checked:
                require_built_from(self._store, session.mark())
                self._is_checked = True
            yield session

    def version(self) -> Hashable | None:
        return self._queries.version() if self._is_checked else None

    def close(self) -> None:
        self._queries.close()
