"""A process that builds one shard beside the process that builds the whole read model."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection

from projector.event_store import EventStore, StoreUnavailable
from projector.read_model import ReadModelUnavailable
from projector.replay.shard import Shard


class ShardProcess:
    """The process as its parent sees it. It sends event counts, and at last the result or an error."""

    def __init__(self, shard: Shard, receiver: Connection) -> None:
        self.shard = shard
        self._receiver = receiver
        self._folded = 0
        self._failed: set[str] | None = None

    def folded(self) -> int:
        """Return the number of events folded so far, without waiting. Raises as `result` does."""
        while self._failed is None and self._receiver.poll():
            self._receive()
        return self._folded

    def result(self, on_progress: Callable[[], None]) -> set[str]:
        """Wait until the shard is complete; return the groups with an event that cannot be applied.

        Raises ReadModelUnavailable if the process has died, and the error that ended it otherwise.
        """
        while self._failed is None:
            self._receive()
            on_progress()
        return self._failed

    def _receive(self) -> None:
        try:
            message = self._receiver.recv()
        except EOFError:
            raise ReadModelUnavailable("a process that built a shard of the read model died") from None
        if isinstance(message, int):
            self._folded += message
        elif isinstance(message, Exception):
            raise message
        else:
            self._failed = message


@contextmanager
def start(open_store: Callable[[], EventStore], shard: Shard) -> Iterator[ShardProcess]:
    """Start a process that builds a shard; it is killed when the context is left."""
    spawning = multiprocessing.get_context("spawn")
    receiver, sender = spawning.Pipe(duplex=False)
    process = spawning.Process(target=build_shard, args=(open_store, shard, sender), daemon=True)
    process.start()
    sender.close()
    try:
        yield ShardProcess(shard, receiver)
    finally:
        process.kill()
        process.join()
        receiver.close()


def build_shard(open_store: Callable[[], EventStore], shard: Shard, sender: Connection) -> None:
    """Build a shard and send the parent progress and the result. If the parent is gone, nothing is left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    versions = {projection.name: projection.version for projection in shard.projections}
    try:
        with (
            closing(open_store()) as store,
            closing(shard.generation.create(versions, shard.forgotten_through)) as draft,
        ):
            failed = shard.load(store, draft, on_progress=sender.send)
        sender.send(failed)
    except (StoreUnavailable, ReadModelUnavailable) as error:
        sender.send(error)
    except BrokenPipeError:
        pass
