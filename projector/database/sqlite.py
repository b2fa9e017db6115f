"""Opening SQLite files that several processes may open, and create, at the same moment."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

LOCK_TIMEOUT_S: Final = 5
_RETRY_S: Final = 0.01


def switch_to_wal(path: str) -> None:
    """Create the file where missing and put it into WAL mode, where it stays.

    SQLite does not wait for a lock while it switches, so this does. Raises sqlite3.Error.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return
        finally:
            connection.close()
