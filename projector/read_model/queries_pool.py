"""Queries for many threads, from queries for one thread each."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from projector.read_model import Queries
from projector.read_model.query_session import QuerySession


class QueriesPool:
    """`Queries` for any number of threads, of which `version` is for one. `open_queries` opens those for one thread."""

    def __init__(self, open_queries: Callable[[], Queries]) -> None:
        self._open = open_queries
        self._idle = [open_queries()]
        self._versions = open_queries()

    @contextmanager
    def session(self) -> Iterator[QuerySession]:
        """Open a session. Raises as those of `open_queries` do."""
        try:
            queries = self._idle.pop()
        except IndexError:
            queries = self._open()
        try:
            with queries.session() as session:
                yield session
        finally:
            self._idle.append(queries)

    def version(self) -> Hashable | None:
        return self._versions.version()

    def close(self) -> None:
        """Close all that are idle: no session may be open."""
        for queries in (*self._idle, self._versions):
            queries.close()
