"""A file that every worker of a read model on SQLite keeps locked, so that other processes can tell that there is one.

projector.db.read-model.worker
"""

import fcntl
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from projector.read_model.generation_files import open_private, os_errors_as_unavailable


class WorkerLock:
    """The lock beside the read model at `path`. Workers share it; the system releases it however a process ends."""

    def __init__(self, path: str) -> None:
        self._path = Path(f"{path}.worker")
        self._file: FileIO | None = None

    def hold(self) -> None:
        """Hold the lock from now on; to be called again and again.

        It only informs. So, if that is not possible at once, or fails, it is left to the next call.
        """
        if not self._is_current():
            self.release()
            with suppress(OSError):
                self._file = FileIO(str(self._path), "ab", opener=open_private)
                fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            self.release()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_held(self) -> bool:
        """Return whether any process holds the lock. Raises ReadModelUnavailable."""
        with os_errors_as_unavailable():
            if not self._path.exists():
                return False
            with self._path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        return False

    def _is_current(self) -> bool:
        """Tell whether this process holds the lock, and the file has been neither deleted nor replaced since."""
        if self._file is None:
            return False
        with suppress(OSError):
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        return False
