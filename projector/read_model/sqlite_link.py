"""A connection to the SQLite file that a link names, looked up anew each time: a replay may name another one."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from projector.read_model import NoReadModel, ReadModelUnavailable

_TRIES: Final = 10
_PRAGMAS: Final = ("synchronous=NORMAL", "cache_size=-16000", "wal_autocheckpoint=4000")


class LinkedFile:
    """One connection, for one thread at a time, to the file that is named at the moment.

    `path` is the link, or a file itself. A file of another schema than `schema_version` is as good as none. A lock
    that others hold is waited for as long as `timeout_s`.
    """

    def __init__(self, path: str, schema_version: int, timeout_s: float = 1) -> None:
        self._timeout_s = timeout_s
        # Looked up for every question, by plain strings: pathlib takes ten times as long.
        self._path = os.path.abspath(path)  # noqa: PTH100 - as said
        self._folder = os.path.dirname(self._path)  # noqa: PTH120 - as said
        self._schema_version = schema_version
        self._named: str | None = None
        self._connection: sqlite3.Connection | None = None

    def connection(self) -> sqlite3.Connection:
        """Return the connection to the file that is named now. Raises NoReadModel and sqlite3.Error."""
        named = self._look_up()
        if self._connection is None or named != self._named:
            self.close()
            self._connection, self._named = self._open(named), named
        return self._connection

    def begin(self, statement: str) -> sqlite3.Connection:
        """Begin a transaction in the file that is named, and still is once the transaction has begun."""
        for _ in range(_TRIES):
            connection = self.connection()
            connection.execute(statement)
            if self._look_up() == self._named:
                return connection
            connection.execute("ROLLBACK")
        raise ReadModelUnavailable("the read model is replaced faster than it can be opened")

    def version(self) -> tuple[str, int]:
        """Return the file that is named now, and a number that changes whenever somebody else commits to it.

        Raises NoReadModel and sqlite3.Error.
        """
        connection = self.connection()
        assert self._named is not None
        return self._named, connection.execute("PRAGMA data_version").fetchone()[0]

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look_up(self) -> str:
        try:
            return os.path.join(self._folder, os.readlink(self._path))  # noqa: PTH115, PTH118 - as said above
        except OSError:
            return self._path

    def _open(self, named: str) -> sqlite3.Connection:
        path = Path(named)
        if not path.exists():
            raise NoReadModel("there is no read model yet; `projector replay` builds it")
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            if connection.execute("PRAGMA user_version").fetchone()[0] != self._schema_version:
                raise NoReadModel("the read model has the schema of another version; `projector replay` builds it")
        except BaseException:
            connection.close()
            raise
        return connection
