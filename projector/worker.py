"""The projecting role of a process: it keeps the live read model current, and rebuilds it when necessary."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from projector.auto_rebuild import AutoRebuild
from projector.event_store import EventStore
from projector.projection import Projection
from projector.read_model import NoReadModel, ReadModelUnavailable
from projector.read_model.generations import Generations
from projector.reconciliation.schedule import Schedule
from projector.replay.replay import Replay
from projector.replay.staleness import reasons_to_rebuild
from projector.subscription import Subscription

_MAX_FIRST_BUILD_EVENTS: Final = 10_000
"""A read model of at most so many events is built in this process, a larger one in another."""


class Worker:
    """Projects while its context is entered. `environment` is that of the commands it runs.

    `on_project` is called in a thread after each batch. With `reconcile_every_s`, it also reconciles with the vendor.
    """

    def __init__(
        self,
        store: EventStore,
        generations: Generations,
        projections: Sequence[Projection],
        *,
        linger_s: float,
        environment: Mapping[str, str],
        on_project: Callable[[], None] = lambda: None,
        reconcile_every_s: int | None = None,
    ) -> None:
        self._store = store
        self._generations = generations
        self._projections = projections
        self._read_model = generations.live()
        self._subscription = Subscription(
            store, self._read_model, projections, linger_s=linger_s, on_project=on_project
        )
        self._thread = threading.Thread(target=self._subscription.run, name="projections")
        self._watching = contextlib.ExitStack()
        self._auto_rebuild = AutoRebuild(self._reasons_to_rebuild, environment, self._build_if_small)
        self._schedule = Schedule(store, reconcile_every_s, environment) if reconcile_every_s else None
        self._is_starting = True

    @property
    def failure(self) -> str | None:
        """The reason why nothing is projected; None while projecting succeeds."""
        return self._subscription.failure

    def wake(self) -> None:
        """Project new events now."""
        self._subscription.wake()

    def __enter__(self) -> None:
        self._watching.enter_context(self._store.watching(self.wake))
        self._auto_rebuild.start()
        self._thread.start()
        if self._schedule:
            self._schedule.start()

    def __exit__(self, *_: object) -> None:
        self._watching.close()
        if self._schedule:
            self._schedule.stop()
        self._auto_rebuild.stop()
        self._subscription.stop()
        self._thread.join()
        self._read_model.close()

    def _build_if_small(self) -> None:
        """Build a missing or outdated read model of few events, unless another rebuild is under way."""
        if self._store.head() <= _MAX_FIRST_BUILD_EVENTS:
            Replay(self._store, self._generations, self._projections, on_wait=_refuse_to_wait).rebuild_if_needed()

    def _reasons_to_rebuild(self) -> list[str]:
        # At the start any reason counts, later only a missing read model: servers of two versions would otherwise
        # rebuild it in turns.
        with contextlib.closing(self._generations.live()) as read_model:
            try:
                with read_model.read_transaction() as live:
                    reasons = reasons_to_rebuild(self._store, live, self._projections) if self._is_starting else []
                    if self._is_starting and self._store.forgotten.unfinished_count():
                        reasons.append("forgetting was interrupted")
            except NoReadModel as error:
                return [str(error)]
        self._is_starting = bool(reasons)  # until a rebuild has succeeded
        return reasons


def _refuse_to_wait() -> None:
    raise ReadModelUnavailable("another replay of this database is under way")
