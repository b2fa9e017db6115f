"""Background threads that notice what other processes append."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a thread until the context is left, which sets the event that `work` is given."""
    stopping = threading.Event()
    thread = threading.Thread(target=work, args=(stopping,), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
