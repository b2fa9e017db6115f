"""Wake-ups between processes: bytes in a pipe."""

import os
from contextlib import suppress


class Wakeup:
    """Wakes the one process that waits for it; others are forked with it. Wake-ups that come together count once."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def wake(self) -> None:
        """Wake the process, now or as soon as it waits. Callable from signal handlers and any thread."""
        with suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def fileno(self) -> int:
        """Return the descriptor that is readable after a wake-up, until `clear`."""
        return self._reader

    def clear(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)
