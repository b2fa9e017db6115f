"""Building a fresh read model: every stream through the folds, in parts by range of group ids, then the indexes."""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from projector.clock import now_ms
from projector.event_store import ALL_GROUPS, StoreUnavailable, stream
from projector.projection import mark_of, refold
from projector.projection.bulk_load import load
from projector.read_model import ReadModelUnavailable
from projector.read_model.generations import RebuildProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from projector.event_store import EventStore, GroupRange
    from projector.projection import Projection
    from projector.read_model import DraftReadModel, ReadModel
    from projector.read_model.generations import Generation

_MIN_EVENTS: Final = 50_000
"""A process of its own takes longer to start than fewer events take to fold."""


class Jobs(NamedTuple):
    """How many processes may build, and how those that help open the store; both go through a pickle."""

    processes: int
    open_store: Callable[[], EventStore]


class _Order(NamedTuple):
    """What one process builds."""

    fresh: Generation
    projections: Sequence[Projection]
    through: int
    bounds: GroupRange = ALL_GROUPS


def build(
    store: EventStore,
    fresh: Generation,
    projections: Sequence[Projection],
    versions: Mapping[str, int],
    *,
    through: int,
    on_progress: Callable[[RebuildProgress], None],
    jobs: Jobs | None,
) -> None:
    """Build these projections from all events up to position `through`; the others of `versions` are copied.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    first, *others = store.split(through, _parts(through, jobs))
    empty = fresh.create(versions, from_scratch=[one.name for one in projections])
    with closing(empty), ExitStack() as helping:
        helpers = [
            helping.enter_context(_helper(jobs, _Order(fresh.shard(number), projections, through, bounds)))
            for number, bounds in enumerate(others, 1)
            if jobs
        ]
        folded = [0] * (1 + len(helpers))

        def advanced(count: int) -> None:
            folded[0] += count
            folded[1:] = [helper.folded() for helper in helpers]
            on_progress(RebuildProgress("fold", sum(folded), through))

        failed = _load(store, empty, _Order(fresh, projections, through, first), advanced)
        for helper in helpers:
            failed |= helper.result(lambda: advanced(0))
            empty.append(helper.part.name, [one.name for one in projections])
        on_progress(RebuildProgress("index", 0, 0))
        empty.finish()
    with closing(fresh.open()) as rebuilt:
        for group_id in sorted(failed):
            refold_group(store, rebuilt, projections, group_id)


def refold_group(
    store: EventStore,
    read_model: ReadModel,
    projections: Sequence[Projection],
    group_id: str,
    through: int | None = None,
) -> None:
    """Replace a group's rows by what its events make of it, up to the checkpoint or to a position.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    with read_model.transaction() as work:
        for projection in projections:
            end = work.checkpoints()[projection.name].position if through is None else through
            refold(work, projection, group_id, stream(store, group_id, end), now_ms=now_ms())


def _parts(through: int, jobs: Jobs | None) -> int:
    return max(1, min(jobs.processes if jobs else 1, through // _MIN_EVENTS))


def _load(store: EventStore, empty: DraftReadModel, order: _Order, advanced: Callable[[int], None]) -> set[str]:
    through = order.through
    with empty.transaction() as work:
        streams = store.read_streams(through, order.bounds)
        failed = load(work, order.projections, streams, through=through, on_progress=advanced)
        for newest in store.read(through - 1, 1) if through else []:
            work.save_mark(mark_of(newest))
    return failed


class _Helper:
    """A process that builds one part, seen from the one that builds the whole."""

    def __init__(self, part: Generation, answers: Connection) -> None:
        self.part = part
        self._answers = answers
        self._folded = 0
        self._failed: set[str] | None = None

    def folded(self) -> int:
        """Return how many events it has folded so far. Raises ReadModelUnavailable if it has died."""
        while self._failed is None and self._answers.poll():
            self._hear()
        return self._folded

    def result(self, waits: Callable[[], None]) -> set[str]:
        """Wait until the part is complete; return the groups of which an event could not be applied.

        Raises ReadModelUnavailable if it has died.
        """
        while self._failed is None:
            self._hear()
            waits()
        return self._failed

    def _hear(self) -> None:
        try:
            answer = self._answers.recv()
        except EOFError:
            raise ReadModelUnavailable("a process that built a part of it died") from None
        if isinstance(answer, int):
            self._folded += answer
        elif isinstance(answer, Exception):
            raise answer
        else:
            self._failed = answer


@contextmanager
def _helper(jobs: Jobs, order: _Order) -> Iterator[_Helper]:
    spawning = multiprocessing.get_context("spawn")
    answers, answering = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_help, args=(jobs.open_store, order, answering), daemon=True)
    process.start()
    answering.close()
    try:
        yield _Helper(order.fresh, answers)
    finally:
        process.kill()
        process.join()
        answers.close()


def _help(open_store: Callable[[], EventStore], order: _Order, answers: Connection) -> None:
    """Build a part. Whoever asked for it is told, and, if that process is gone, there is nothing left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    versions = {one.name: one.version for one in order.projections}
    try:
        with closing(open_store()) as store, closing(order.fresh.create(versions, from_scratch=versions)) as empty:
            failed = _load(store, empty, order, answers.send)
        answers.send(failed)
    except (StoreUnavailable, ReadModelUnavailable) as error:
        answers.send(error)
    except BrokenPipeError:
        pass
