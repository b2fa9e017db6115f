"""Build of a new read model: its shards are folded side by side, each in a process, then the indexes are created."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import Final, NamedTuple

from projector.event_store import EventStore
from projector.projection import Projection
from projector.projection.refold import refold_group
from projector.read_model.generations import Generation, RebuildProgress
from projector.replay import shard_process
from projector.replay.shard import Shard

_MIN_SHARD_EVENTS: Final = 50_000
"""Fewer events are folded in less time than a process takes to start."""


class Jobs(NamedTuple):
    """How many processes may build, and how each opens the store; both are pickled."""

    processes: int
    open_store: Callable[[], EventStore]


def build(
    store: EventStore,
    fresh: Generation,
    projections: Sequence[Projection],
    *,
    through: int,
    forgotten_through: int,
    on_progress: Callable[[RebuildProgress], None],
    jobs: Jobs | None,
) -> None:
    """Build these projections from all events up to position `through`.

    Raises StoreUnavailable and ReadModelUnavailable.
    """
    versions = {projection.name: projection.version for projection in projections}
    first, *others = store.split(through, _shard_count(through, jobs))
    with (
        closing(fresh.create(versions, forgotten_through)) as draft,
        ExitStack() as stack,
    ):
        shards = [
            Shard(fresh.shard(number), projections, through, forgotten_through, groups)
            for number, groups in enumerate(others, 1)
        ]
        processes = [stack.enter_context(shard_process.start(jobs.open_store, shard)) for shard in shards if jobs]
        folded_here = 0

        def report(count: int) -> None:
            nonlocal folded_here
            folded_here += count
            folded = folded_here + sum(process.folded() for process in processes)
            on_progress(RebuildProgress("fold", folded, through))

        failed = Shard(fresh, projections, through, forgotten_through, first).load(store, draft, on_progress=report)
        for process in processes:
            failed |= process.result(lambda: report(0))
            draft.append(process.shard.generation.name)
        on_progress(RebuildProgress("index", 0, 0))
        draft.finish()
    with closing(fresh.open()) as rebuilt:
        for group_id in sorted(failed):
            refold_group(store, rebuilt, projections, group_id)


def _shard_count(through: int, jobs: Jobs | None) -> int:
    return max(1, min(jobs.processes if jobs else 1, through // _MIN_SHARD_EVENTS))
