"""The only place where objects meet: settings in, a store, a read model or a whole application out."""

from __future__ import annotations

import contextlib
import os
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import structlog
from anyio import to_thread

from projector.event_store import StoreUnavailable, StoreUnreadable
from projector.event_store.group_commit import GroupCommit
from projector.event_store.spool import Spool
from projector.event_store.sqlite import open_sqlite
from projector.event_store.store_and_forward import StoreAndForward
from projector.health import Health, look
from projector.http.app import Components, create_app
from projector.http.ingest import Ingest
from projector.http.metrics import Metrics
from projector.http.query_runner import QueryRunner
from projector.projection.fullness import FullnessProjection
from projector.projection.membership import MembershipProjection
from projector.projection.profile import ProfileProjection
from projector.projection.timeline import TimelineProjection
from projector.read_model import NoReadModel
from projector.read_model.sqlite import SQLiteQueries
from projector.read_model.sqlite_generations import SQLiteGenerations
from projector.replay.replay import Replay
from projector.replay.staleness import reasons_to_rebuild
from projector.settings import Settings, WrongSetting
from projector.subscription import LINGER_S, Subscription
from projector.worker import AutoRebuild

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.types import ASGIApp

    from projector.event_store import EventStore
    from projector.event_store.quarantine import Quarantine
    from projector.projection import Projection
    from projector.read_model import Queries
    from projector.read_model.generations import Generations

Role = Literal["callbacks", "queries", "projections"]

_REMOTE_LINGER_S: Final = 0.04
"""A transaction on a server costs as much as some hundred events."""

_BUILT_AT_ONCE: Final = 10_000
"""So many events are projected before anything is served; more of them, by another process meanwhile."""

log = structlog.get_logger(__name__)

PROJECTIONS: Final[tuple[Projection, ...]] = (
    MembershipProjection(),
    ProfileProjection(),
    FullnessProjection(),
    TimelineProjection(),
)


class Stores(NamedTuple):
    """Where events go, and where what could not become one waits."""

    events: EventStore
    quarantine: Quarantine


def open_stores(settings: Settings, *, may_be_away: bool = False) -> Stores:
    """Open the event store. If it `may_be_away`, a PostgreSQL database need not answer yet.

    Raises StoreUnavailable and WrongSetting.
    """
    stores = _open_stores(settings)
    try:
        stores.events.require_decodable()
    except StoreUnreadable:
        raise
    except StoreUnavailable as error:
        if not may_be_away or settings.postgres_url is None:
            raise
        log.warning("database unavailable; spooling callbacks", reason=str(error))
    return stores


def _open_stores(settings: Settings) -> Stores:
    library, max_quarantined = dict(settings.library), settings.max_quarantined
    if settings.postgres_url is None:
        return Stores(*open_sqlite(settings.database_path, library, max_quarantined=max_quarantined))
    store = _postgres("projector.event_store.postgres")
    url = _connection_string(settings, settings.postgres_url)
    return Stores(*store.open_postgres(url, library, max_quarantined=max_quarantined, pool_size=settings.pool_size))


def _connection_string(settings: Settings, url: str) -> str:
    connection_string: str = _postgres("projector.database.postgres").with_timeouts(
        url, lock_timeout_ms=settings.lock_timeout_ms, statement_timeout_ms=settings.statement_timeout_ms
    )
    return connection_string


def _postgres(module: str) -> Any:
    """Return a module that needs the driver, which is installed only where it is wanted. Raises WrongSetting."""
    try:
        return import_module(module)
    except ImportError as error:
        raise WrongSetting(
            f"PROJECTOR_DATABASE_URL names PostgreSQL, for which there is no driver here ({error}): install"
            " group-state-projector[postgres]"
        ) from error


def open_events(settings: Settings) -> EventStore:
    """Open the event store. Raises as `open_stores` does."""
    return open_stores(settings).events


def open_generations(settings: Settings) -> Generations:
    """Return the read models there are, of which none may be there yet."""
    if settings.postgres_url is None:
        return SQLiteGenerations(settings.read_model_path)
    generations: Generations = _postgres("projector.read_model.postgres_generations").PostgresGenerations(
        _connection_string(settings, settings.postgres_url)
    )
    return generations


def open_queries(settings: Settings) -> Queries:
    """Return the questions to the live read model; there need not be one yet."""
    if settings.postgres_url is None:
        return SQLiteQueries(settings.read_model_path)
    queries: Queries = _postgres("projector.read_model.postgres").PostgresQueries(
        _connection_string(settings, settings.query_url or settings.postgres_url)
    )
    return queries


def look_at(stores: Stores, queries: Queries, *, failure: str | None = None) -> Health:
    """Return the health of the projections. Raises StoreUnavailable and ReadModelUnavailable."""
    return look(stores.events, stores.quarantine, queries, [one.name for one in PROJECTIONS], failure=failure)


def create_server_app(settings: Settings, parts: Sequence[Role], callbacks_port: int | None = None) -> ASGIApp:
    """Return the application of one process that serves these parts, callbacks on a port of their own if one is given.

    Raises StoreUnavailable, ReadModelUnavailable and WrongSetting.
    """
    # A receiver that has a spool from an earlier run can do its work while the database is away.
    may_be_away = (
        list(parts) == ["callbacks"] and settings.spool_path is not None and Path(settings.spool_path).exists()
    )
    stores = open_stores(settings, may_be_away=may_be_away)
    queries, seen_by_health = open_queries(settings), open_queries(settings)
    one_look_at_a_time = threading.Lock()
    projecting = _Projecting(settings, stores.events) if "projections" in parts else None

    wake = projecting.wake if projecting else _nobody_to_wake
    # A file answers in less than it takes to ask another thread; a server may keep everybody else waiting.
    threads = settings.pool_size if settings.postgres_url else 0
    forwarding = _open_forwarding(settings, stores, wake) if "callbacks" in parts else None
    spooled = forwarding.status if forwarding else None

    def health() -> Health:
        with one_look_at_a_time:
            return look_at(stores, seen_by_health, failure=projecting.failure if projecting else None)

    metrics = Metrics(health, spooled)
    commit = GroupCommit(forwarding.append if forwarding else stores.events.append, on_commit=wake)

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        with projecting or contextlib.nullcontext():
            if forwarding:
                forwarding.start()
            yield
            await commit.close()
            if forwarding:
                await to_thread.run_sync(forwarding.stop)
        queries.close()
        seen_by_health.close()
        stores.events.close()

    return create_app(
        Components(
            health=health,
            metrics=metrics,
            running=running,
            ingest=Ingest(settings, commit, forwarding or stores.quarantine, metrics) if "callbacks" in parts else None,
            queries=QueryRunner(stores.events, queries, threads) if "queries" in parts else None,
            spooled=spooled,
            read_tokens=settings.read_tokens,
            callbacks_port=callbacks_port,
        )
    )


def _open_forwarding(settings: Settings, stores: Stores, forwarded: Callable[[], None]) -> StoreAndForward | None:
    if settings.spool_path is None:
        return None
    spool = Spool(settings.spool_path, stores.events.mapper, settings.spool_events)
    return StoreAndForward(stores.events, stores.quarantine, spool, forwarded)


class _Projecting:
    """The subscription, and what it takes to have a read model for it, while the context is entered."""

    def __init__(self, settings: Settings, store: EventStore) -> None:
        self._store = store
        self._generations = open_generations(settings)
        self._read_model = self._generations.live()
        linger_s = _REMOTE_LINGER_S if settings.postgres_url else LINGER_S
        self._subscription = Subscription(store, self._read_model, PROJECTIONS, linger_s=linger_s)
        self._watching = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._subscription.run, name="projections")
        if store.head() <= _BUILT_AT_ONCE:
            Replay(store, self._generations, PROJECTIONS).rebuild_if_needed()
        url = settings.postgres_url or f"sqlite:///{settings.database_path}"
        environment = {**os.environ, "PROJECTOR_DATABASE_URL": url}
        self._rebuilding = AutoRebuild(self._reasons, environment)
        self._is_new = True

    @property
    def failure(self) -> str | None:
        """Why nothing is projected; None while all is well."""
        return self._subscription.failure

    def wake(self) -> None:
        """Tell that there are new events."""
        self._subscription.wake()

    def __enter__(self) -> None:
        self._watching.enter_context(self._store.watching(self.wake))
        self._thread.start()
        self._rebuilding.start()

    def __exit__(self, *_: object) -> None:
        self._watching.close()
        self._rebuilding.stop()
        self._subscription.stop()
        self._thread.join()
        self._read_model.close()

    def _reasons(self) -> list[str]:
        """Return why the read model has to be built: at the start for any reason, later only if it is gone.

        Servers of two versions that run at the same time would else build without end.
        """
        with contextlib.closing(self._generations.live()) as read_model:
            try:
                with read_model.read_transaction() as now:
                    reasons = reasons_to_rebuild(self._store, now, PROJECTIONS) if self._is_new else []
            except NoReadModel as error:
                return [str(error)]
        self._is_new = False
        return reasons


def _nobody_to_wake() -> None:
    """Projections run in another process, which watches the store by itself."""
