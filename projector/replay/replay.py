"""Replay: a fresh read model from position 0, beside the live one; compare; swap."""

from __future__ import annotations

from contextlib import closing, contextmanager
from heapq import merge
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from projector.read_model import NoReadModel
from projector.read_model.generations import RebuildProgress
from projector.replay.build import build, refold_group
from projector.replay.staleness import reasons_to_rebuild
from projector.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from projector.event_store import EventStore
    from projector.projection import Projection
    from projector.read_model import ReadModel
    from projector.read_model.generations import Generation, Generations
    from projector.read_model.rows import TableRows
    from projector.read_model.unit_of_work import ReadTransaction
    from projector.replay.build import Jobs

_TIMEOUT_S: Final = 60
_WORTH_COMPARING: Final = 0.5
"""Of a live model that has come less far than this share of all events, little could be said."""


class CannotReplay(Exception):
    """What was asked for cannot be done; the text says why."""


class Difference(NamedTuple):
    """A row that the live read model has otherwise than the events say; None is no such row."""

    projection: str
    table: str
    key: tuple[str, ...]
    live: tuple[Any, ...] | None
    rebuilt: tuple[Any, ...] | None


class ReplayResult(NamedTuple):
    """What a replay saw: the position of both models when they were compared, and how many rows differed.

    `reasons_to_rebuild` are the reasons for which the live model could not be compared.
    """

    position: int
    differences: int
    reasons_to_rebuild: tuple[str, ...] = ()


class Replay:
    """Rebuilds read models.

    `on_difference` is called with each difference, group by group; `on_wait` before waiting for another rebuild.
    `jobs` allows other processes to help.
    All methods raise StoreUnavailable, ReadModelUnavailable and CannotReplay; the live model is then as it was.
    """

    def __init__(
        self,
        store: EventStore,
        generations: Generations,
        projections: Sequence[Projection],
        *,
        on_difference: Callable[[Difference], None] = lambda _: None,
        on_progress: Callable[[RebuildProgress], None] = lambda _: None,
        on_wait: Callable[[], None] = lambda: None,
        jobs: Jobs | None = None,
    ) -> None:
        self._store = store
        self._generations = generations
        self._projections = projections
        self._on_difference = on_difference
        self._on_progress = on_progress
        self._on_wait = on_wait
        self._jobs = jobs

    def rebuild(self, *, only: str | None = None, check: bool = False) -> ReplayResult:
        """Build a fresh model, or one projection of it; compare; unless it is a check, make it the live one."""
        with self._building() as (fresh, live):
            return self._replay(fresh, live, self._chosen(only), check=check)

    def rebuild_if_needed(self) -> ReplayResult | None:
        """Build what is not of these events or not of these versions, and make it live; None if there is nothing."""
        with self._building() as (fresh, live):
            needed = [one for one in self._projections if self._unfit(live, [one])]
            return self._replay(fresh, live, needed, check=False) if needed else None

    def replace_all(self) -> int:
        """Build a fresh model, make it the live one, and keep none from before; return the position it is at."""
        with self._building() as (fresh, live):
            self._build(fresh, self._projections, through=self._store.head())
            with closing(fresh.open()) as rebuilt:
                position = self._swap(fresh, rebuilt, live)
            self._generations.drop_previous()
            return position

    def rebuild_group(self, group_id: str, *, only: str | None = None, check: bool = False) -> ReplayResult:
        """Compare one group; unless it is a check, put it right in one transaction."""
        projections = self._chosen(only)
        with self._building() as (scratch, live):
            self._require_fit(live, projections)
            scratch.create(self._versions(), from_scratch=self._versions()).finish()
            with closing(scratch.open()) as rebuilt, live.read_transaction() as now:
                position = _position(now, projections)
                refold_group(self._store, rebuilt, projections, group_id, through=position)
                with rebuilt.read_transaction() as then:
                    differing = self._compare(now, then, projections, group_id)
            if differing and not check:
                refold_group(self._store, live, projections, group_id)
            return ReplayResult(position, differing)

    def roll_back(self) -> int:
        """Make the model before the live one again, as soon as it is as recent; return the position it is at."""
        with self._building() as (_, live):
            if (previous := self._generations.previous()) is None:
                raise CannotReplay("there is no read model to go back to: none was live before this one")
            with closing(previous.open()) as before:
                self._require_fit(before, self._projections)
                return self._swap(previous, before, live)

    @contextmanager
    def _building(self) -> Iterator[tuple[Generation, ReadModel]]:
        with (
            self._generations.begin_rebuild(self._on_wait) as generation,
            closing(self._generations.live(timeout_s=_TIMEOUT_S)) as live,
        ):
            yield generation, live

    def _replay(self, fresh: Generation, live: ReadModel, chosen: Sequence[Projection], *, check: bool) -> ReplayResult:
        if others := [one for one in self._projections if one not in chosen]:
            self._require_fit(live, others)
        through, reasons = self._compared_at(live, chosen)
        self._build(fresh, chosen, through=through)
        with closing(fresh.open()) as rebuilt:
            replayed = ReplayResult(through, 0, tuple(reasons))
            if not reasons:
                with live.read_transaction() as now:
                    position = _position(now, chosen)
                    Subscription(self._store, rebuilt, self._projections).catch_up(through=position)
                    with rebuilt.read_transaction() as then:
                        replayed = ReplayResult(position, self._compare(now, then, chosen))
            if not check:
                self._swap(fresh, rebuilt, live)
        return replayed

    def _build(self, fresh: Generation, chosen: Sequence[Projection], *, through: int) -> None:
        build(
            self._store,
            fresh,
            chosen,
            self._versions(),
            through=through,
            on_progress=self._on_progress,
            jobs=self._jobs,
        )

    def _compared_at(self, live: ReadModel, chosen: Sequence[Projection]) -> tuple[int, list[str]]:
        """Return up to which position to build before comparing, and the reasons not to compare."""
        head = self._store.head()
        if reasons := self._unfit(live, chosen):
            return head, reasons
        with live.read_transaction() as now:
            position = _position(now, chosen)
        if position < head * _WORTH_COMPARING:
            return head, [f"it has only come to position {position} of {head}"]
        return position, []

    def _compare(
        self,
        live: ReadTransaction,
        rebuilt: ReadTransaction,
        projections: Sequence[Projection],
        group_id: str | None = None,
    ) -> int:
        self._on_progress(RebuildProgress("compare", 0, 0))
        count = 0
        for difference in differences(live, rebuilt, projections, group_id):
            self._on_difference(difference)
            count += 1
        return count

    def _swap(self, fresh: Generation, rebuilt: ReadModel, live: ReadModel) -> int:
        """Make the fresh model the live one while nobody projects, so that no position ever goes back."""
        following = Subscription(self._store, rebuilt, self._projections)
        following.catch_up(on_progress=lambda _: self._on_progress(RebuildProgress("catch up", 0, 0)))
        try:
            with live.transaction() as now:
                reached = max((one.position for one in now.checkpoints().values()), default=0)
                position = following.catch_up(through=reached)
                fresh.promote()
        except NoReadModel:
            position = following.catch_up()
            fresh.promote()
        return position

    def _chosen(self, only: str | None) -> list[Projection]:
        return [one for one in self._projections if only in (None, one.name)]

    def _versions(self) -> dict[str, int]:
        return {one.name: one.version for one in self._projections}

    def _unfit(self, read_model: ReadModel, projections: Sequence[Projection]) -> list[str]:
        try:
            with read_model.read_transaction() as now:
                return reasons_to_rebuild(self._store, now, projections)
        except NoReadModel as error:
            return [str(error)]

    def _require_fit(self, read_model: ReadModel, projections: Sequence[Projection]) -> None:
        if reasons := self._unfit(read_model, projections):
            raise CannotReplay(f"the read model cannot be used: {reasons[0]}; run `projector replay`")


def differences(
    live: ReadTransaction, rebuilt: ReadTransaction, projections: Sequence[Projection], group_id: str | None = None
) -> Iterator[Difference]:
    """Walk both models side by side and yield what does not match, group by group."""
    tables = [
        _differences(projection.name, ours, theirs)
        for projection in projections
        for ours, theirs in zip(
            live.rows(projection.name, group_id), rebuilt.rows(projection.name, group_id), strict=True
        )
    ]
    return merge(*tables, key=lambda difference: difference.key[0])


def _differences(projection: str, live: TableRows, rebuilt: TableRows) -> Iterator[Difference]:
    ours, theirs, width = live.values, rebuilt.values, live.width
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        if left == right:
            left, right = next(ours, None), next(theirs, None)
            continue
        key = min(row[:width] for row in (left, right) if row is not None)
        found = wanted = None
        if left is not None and left[:width] == key:
            found, left = left, next(ours, None)
        if right is not None and right[:width] == key:
            wanted, right = right, next(theirs, None)
        yield Difference(projection, live.table, key, found, wanted)


def _position(read_model: ReadTransaction, projections: Sequence[Projection]) -> int:
    known = read_model.checkpoints()
    return min(known[projection.name].position for projection in projections)
