"""The lock of a run, so that two do not ask for the same at once. However a process ends, the system releases it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from projector.database.postgres_server import PostgresServer

_LOCK: Final = 0x7265636F


class AlreadyRunning(Exception):
    """Another process reconciles the same database."""

    def __init__(self) -> None:
        super().__init__("another reconciliation of this database is under way; see `projector status`")


@contextmanager
def file_lock(path: str) -> Iterator[None]:
    """Hold a file locked. Raises AlreadyRunning and OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunning from None
    finally:
        os.close(descriptor)


@contextmanager
def postgres_lock(server: PostgresServer) -> Iterator[None]:
    """Hold an advisory lock, on a connection of its own. Raises AlreadyRunning."""
    with server.connect() as connection:
        ((is_ours,),) = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchall()
        if not is_ours:
            raise AlreadyRunning
        yield
