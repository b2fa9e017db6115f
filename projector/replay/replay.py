"""Replay: rebuild the read model beside the live one, compare the two, swap them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

from projector.event_store import EventStore
from projector.projection import Projection
from projector.projection.refold import refold_group
from projector.read_model import NoReadModel, ReadModel
from projector.read_model.generations import Generation, Generations, RebuildProgress
from projector.read_model.unit_of_work import ReadTransaction
from projector.replay.build import Jobs, build
from projector.replay.compare import Difference, differences
from projector.replay.staleness import reasons_to_rebuild
from projector.subscription import Subscription

_TIMEOUT_S: Final = 60
_MIN_COMPARED_SHARE: Final = 0.5
"""A live read model that has reached less than this share of all events is not worth comparing."""


class CannotReplay(Exception):
    """The requested replay is impossible; the text gives the reason."""


class ReplayResult(NamedTuple):
    """The position at which both read models were compared, and the number of rows that differed.

    `reasons_to_rebuild` are the reasons why the live read model could not be compared.
    """

    position: int
    differences: int
    reasons_to_rebuild: tuple[str, ...] = ()


class Replay:
    """Rebuilds read models.

    `on_difference` is called with each difference, group by group; `on_wait` before waiting for another rebuild to end.
    `jobs` allows other processes to help.

    All methods raise StoreUnavailable, ReadModelUnavailable and CannotReplay, and then leave the live read model as it
    was.
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

    def rebuild(self, *, check: bool = False) -> ReplayResult:
        """Build all projections and compare; unless it is a check, make the new read model live."""
        with self._begin() as (fresh, live):
            return self._rebuild(fresh, live, check=check)

    def rebuild_if_needed(self) -> ReplayResult | None:
        """Build all projections unless they are up to date, and make the new read model live; None if they are."""
        with self._begin() as (fresh, live):
            return self._rebuild(fresh, live, check=False) if self._reasons(live) else None

    def replace_outdated(self) -> int:
        """Build all projections anew unless they are up to date; delete earlier read models; return the position."""
        with self._begin() as (fresh, live):
            if self._reasons(live):
                self._build(fresh, through=self._store.head())
                with closing(fresh.open()) as rebuilt:
                    self._swap(fresh, rebuilt, live)
            self._generations.drop_previous()
            with live.read_transaction() as now:
                return _position(now, self._projections)

    def rebuild_group(self, group_id: str, *, check: bool = False) -> ReplayResult:
        """Compare one group; unless it is a check, correct it in one transaction."""
        projections = self._projections
        with self._begin() as (scratch, live):
            self._require_up_to_date(live)
            with live.read_transaction() as now:
                position = _position(now, projections)
                scratch.create(self._versions(), now.forgotten_through()).finish()
                with closing(scratch.open()) as rebuilt:
                    refold_group(self._store, rebuilt, projections, group_id, through=position)
                    with rebuilt.read_transaction() as then:
                        differing = self._compare(now, then, group_id)
            if differing and not check:
                refold_group(self._store, live, projections, group_id)
            return ReplayResult(position, differing)

    def roll_back(self) -> int:
        """Make the previous read model live again, once it has caught up; return its position."""
        with self._begin() as (_, live):
            if (previous := self._generations.previous()) is None:
                raise CannotReplay("there is no previous read model to roll back to")
            with closing(previous.open()) as before:
                self._require_up_to_date(before)
                return self._swap(previous, before, live)

    @contextmanager
    def _begin(self) -> Iterator[tuple[Generation, ReadModel]]:
        """Take the right to rebuild; hand out a new generation and the live read model."""
        with (
            self._generations.begin_rebuild(self._on_wait) as generation,
            closing(self._generations.live(timeout_s=_TIMEOUT_S)) as live,
        ):
            yield generation, live

    def _rebuild(self, fresh: Generation, live: ReadModel, *, check: bool) -> ReplayResult:
        through, reasons = self._comparable_at(live)
        self._build(fresh, through=through)
        with closing(fresh.open()) as rebuilt:
            result = ReplayResult(through, 0, tuple(reasons))
            if not reasons:
                with live.read_transaction() as now:
                    position = _position(now, self._projections)
                    Subscription(self._store, rebuilt, self._projections).catch_up(through=position)
                    with rebuilt.read_transaction() as then:
                        if now.forgotten_through() == then.forgotten_through():
                            result = ReplayResult(position, self._compare(now, then))
                        else:
                            result = ReplayResult(position, 0, ("users were forgotten meanwhile",))
            if not check:
                self._swap(fresh, rebuilt, live)
        return result

    def _build(self, fresh: Generation, *, through: int) -> None:
        build(
            self._store,
            fresh,
            self._projections,
            through=through,
            forgotten_through=self._store.forgotten.newest(),
            on_progress=self._on_progress,
            jobs=self._jobs,
        )

    def _comparable_at(self, live: ReadModel) -> tuple[int, list[str]]:
        """Return the position up to which to build, and the reasons not to compare there."""
        head = self._store.head()
        if reasons := self._reasons(live):
            return head, reasons
        with live.read_transaction() as now:
            position = _position(now, self._projections)
        if position < head * _MIN_COMPARED_SHARE:
            return head, [f"it has only reached position {position} of {head}"]
        return position, []

    def _compare(
        self,
        live: ReadTransaction,
        rebuilt: ReadTransaction,
        group_id: str | None = None,
    ) -> int:
        """Report all differences; return how many there are."""
        self._on_progress(RebuildProgress("compare", 0, 0))
        count = 0
        for difference in differences(live, rebuilt, self._projections, group_id):
            self._on_difference(difference)
            count += 1
        return count

    def _swap(self, fresh: Generation, rebuilt: ReadModel, live: ReadModel) -> int:
        """Make the rebuilt read model live while no process projects, so that the position never goes back."""
        subscription = Subscription(self._store, rebuilt, self._projections)
        subscription.catch_up(on_progress=lambda _: self._on_progress(RebuildProgress("catch up", 0, 0)))
        try:
            with live.transaction() as now:
                reached = max((checkpoint.position for checkpoint in now.checkpoints().values()), default=0)
                position = subscription.catch_up(through=reached)
                fresh.promote()
        except NoReadModel:
            position = subscription.catch_up()
            fresh.promote()
        return position

    def _versions(self) -> dict[str, int]:
        return {projection.name: projection.version for projection in self._projections}

    def _reasons(self, read_model: ReadModel) -> list[str]:
        """Return the reasons why a read model is not up to date."""
        try:
            with read_model.read_transaction() as now:
                return reasons_to_rebuild(self._store, now, self._projections)
        except NoReadModel as error:
            return [str(error)]

    def _require_up_to_date(self, read_model: ReadModel) -> None:
        if reasons := self._reasons(read_model):
            raise CannotReplay(f"the read model cannot be used: {reasons[0]}; run `projector replay`")


def _position(read_model: ReadTransaction, projections: Sequence[Projection]) -> int:
    """Return the position that all these projections have reached."""
    checkpoints = read_model.checkpoints()
    return min(checkpoints[projection.name].position for projection in projections)
