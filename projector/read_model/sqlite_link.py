"""A connection to the SQLite file that a symbolic link names, which may name another one at the next transaction.

Files are told apart by device and inode: a file may be deleted, and another one created under its name. While a file is
open, its inode is not used again.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from projector.read_model import NoReadModel, ReadModelUnavailable
from projector.read_model.generations import MISSING, require_schema

_MAX_TRIES: Final = 10

_Identity: TypeAlias = tuple[int, int]
"""The device and the inode of a file."""


class LinkedFile:
    """One connection, for one thread at a time, to the file that is linked at the time.

    `path` is the link, or a file itself; `pragmas` are set on each connection; `timeout_s` limits the wait for locks.
    """

    def __init__(self, path: str, pragmas: Sequence[str], *, timeout_s: float = 1) -> None:
        self._timeout_s = timeout_s
        self._pragmas = pragmas
        # Used for each transaction, and therefore plain strings: pathlib takes ten times as long.
        self._path = os.path.abspath(path)  # noqa: PTH100
        self._folder = os.path.dirname(self._path)  # noqa: PTH120
        self._connected_to: _Identity | None = None
        self._connection: sqlite3.Connection | None = None

    def connection(self) -> sqlite3.Connection:
        """Return the connection to the file that is linked now. Raises NoReadModel and sqlite3.Error."""
        identity = self._identity()
        if self._connection is None or identity != self._connected_to:
            self.close()
            if identity is None:
                raise NoReadModel(MISSING)
            self._connection, self._connected_to = self._connect(self._target()), identity
        return self._connection

    def begin(self, statement: str) -> sqlite3.Connection:
        """Begin a transaction in the file that is linked, and still is after the transaction has begun.

        Raises ReadModelUnavailable and sqlite3.Error.
        """
        for _ in range(_MAX_TRIES):
            connection = self.connection()
            connection.execute(statement)
            if self._identity() == self._connected_to:
                return connection
            connection.execute("ROLLBACK")
        raise ReadModelUnavailable("the read model is replaced faster than it can be opened")

    def version(self) -> tuple[_Identity, int]:
        """Return the file that is linked now, and a number that changes with every commit of other connections.

        Raises NoReadModel and sqlite3.Error.
        """
        connection = self.connection()
        assert self._connected_to is not None
        return self._connected_to, connection.execute("PRAGMA data_version").fetchone()[0]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _identity(self) -> _Identity | None:
        """Return the identity of the file that is linked now, None if there is none."""
        try:
            status = os.stat(self._path)  # noqa: PTH116
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _target(self) -> str:
        try:
            return os.path.join(self._folder, os.readlink(self._path))  # noqa: PTH115, PTH118
        except OSError:
            return self._path

    def _connect(self, target: str) -> sqlite3.Connection:
        path = Path(target)
        if not path.exists():
            raise NoReadModel(MISSING)
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for pragma in self._pragmas:
                connection.execute(f"PRAGMA {pragma}").fetchone()
            require_schema(connection.execute("PRAGMA user_version").fetchone()[0])
        except BaseException:
            connection.close()
            raise
        return connection
