"""Composition: from settings to stores, read models and applications."""

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import structlog
from anyio import to_thread
from starlette.types import ASGIApp

from projector.event_store import EventStore, OtherApp, StoreUnavailable, StoreUnreadable
from projector.event_store.group_commit import GroupCommit
from projector.event_store.quarantine import Quarantine
from projector.event_store.spool import Spool, SpoolStatus, spool_status
from projector.event_store.sqlite import open_sqlite
from projector.event_store.store_and_forward import StoreAndForward
from projector.forwarding.state import StateConnection
from projector.forwarding.state_connections import file_state, server_state
from projector.health import Health, check_health
from projector.http.app import Components, create_app
from projector.http.feed_head import MAX_WAITING
from projector.http.ingest import Ingest
from projector.http.metrics import Metrics
from projector.http.query_runner import QueryRunner
from projector.http.reached_position import POLL_S
from projector.http.response_cache import MAX_BYTES
from projector.processes.board import Board
from projector.processes.wakeup import Wakeup
from projector.projection import Projection
from projector.projection.groups import GroupsProjection
from projector.projection.origin import QueriesOfStore
from projector.read_model import NoReadModel, Queries
from projector.read_model.generation_files import live_path
from projector.read_model.generations import Generations
from projector.read_model.queries_pool import QueriesPool
from projector.read_model.query_session import Counts
from projector.read_model.sqlite import SQLiteQueries
from projector.read_model.sqlite_generations import SQLiteGenerations
from projector.reconciliation.run_lock import file_lock, postgres_lock
from projector.settings import Settings, WrongSetting
from projector.status import Status, status_of
from projector.subscription import LINGER_S
from projector.worker import Worker

if TYPE_CHECKING:
    from projector.database.postgres_server import PostgresServer

Role = Literal["callbacks", "queries", "projections"]

_REMOTE_LINGER_S: Final = 0.04
"""A transaction on a database server costs as much as some hundred events."""

_QUERY_THREADS: Final = 4
"""How many queries that may take long run at a time."""

_POLL_S: Final = 1.0
"""How often clients that wait are served even if no wake-up arrives."""

_REPORT_S: Final = 0.5
PROJECTIONS_PROCESS: Final = "projections"

log = structlog.get_logger(__name__)

PROJECTIONS: Final[tuple[Projection, ...]] = (GroupsProjection(),)


def _do_nothing() -> None:
    """Wake no other process: it notices changes by itself."""


class Stores(NamedTuple):
    """The event store, and its quarantine."""

    events: EventStore
    quarantine: Quarantine


def open_stores(settings: Settings, *, allow_unavailable: bool = False, read_only: bool = False) -> Stores:
    """Open the event store. With `allow_unavailable`, a PostgreSQL database that is down is connected to later.

    With `read_only`, nothing is created, and stores of earlier versions are read as they are. Otherwise, what is
    missing is created, and the store's SDKAppID checked or recorded.

    Raises StoreUnavailable, StoreUnreadable and OtherApp among them, and WrongSetting.
    """
    stores = _open_stores(settings, read_only=read_only)
    try:
        stores.events.require_decodable()
        if settings.sdk_app_id is not None and not read_only:
            stores.events.require_app(settings.sdk_app_id)
    except (StoreUnreadable, OtherApp):
        raise
    except StoreUnavailable as error:
        if not allow_unavailable or settings.postgres_url is None:
            raise
        log.warning("database unavailable; trying again while serving", reason=str(error))
    return stores


def _open_stores(settings: Settings, *, read_only: bool) -> Stores:
    library, max_quarantined = dict(settings.library), settings.max_quarantined
    if settings.postgres_url is None:
        return Stores(
            *open_sqlite(settings.database_path, library, max_quarantined=max_quarantined, read_only=read_only)
        )
    with _postgres_driver():
        from projector.event_store.postgres import open_postgres
    server = _server(settings, settings.postgres_url)
    return Stores(
        *open_postgres(
            server, library, max_quarantined=max_quarantined, pool_size=settings.pool_size, read_only=read_only
        )
    )


def _server(settings: Settings, url: str) -> "PostgresServer":
    with _postgres_driver():
        from projector.database.postgres_server import PostgresServer
    return PostgresServer(
        url, lock_timeout_ms=settings.lock_timeout_ms, statement_timeout_ms=settings.statement_timeout_ms
    )


@contextlib.contextmanager
def _postgres_driver() -> Iterator[None]:
    """Import modules that need the PostgreSQL driver, an optional dependency. Raises WrongSetting without it."""
    try:
        yield
    except ImportError as error:
        raise WrongSetting(
            f"PROJECTOR_DATABASE_URL names PostgreSQL, whose driver is not installed ({error}); install"
            " group-state-projector[postgres]"
        ) from error


def open_events(settings: Settings, *, read_only: bool = False) -> EventStore:
    """Open the event store as `open_stores` does. Raises StoreUnavailable and WrongSetting."""
    return open_stores(settings, read_only=read_only).events


def open_forward_state(
    settings: Settings, name: str, path: str | None
) -> contextlib.AbstractContextManager[StateConnection]:
    """Open the state of a forwarder: in a file, by default in the database or, on SQLite, in a file beside it."""
    if path is None and settings.postgres_url is not None:
        return server_state(lambda: _server(settings, str(settings.postgres_url)), name)
    return file_state(path or f"{settings.database_path}.forward")


def open_spool(settings: Settings, store: EventStore, *, create: bool = False) -> Spool | None:
    """Open the spool of a receiver on this machine, None if there is none. Raises StoreUnavailable."""
    if settings.spool_path is None or not (create or Path(settings.spool_path).exists()):
        return None
    return Spool(settings.spool_path, store.mapper, settings.spool_events, settings.sdk_app_id)


def open_generations(settings: Settings) -> Generations:
    """Return the generations of the read model, none of which need exist."""
    if settings.postgres_url is None:
        return SQLiteGenerations(settings.read_model_path)
    with _postgres_driver():
        from projector.read_model.postgres_generations import PostgresGenerations
    return PostgresGenerations(_server(settings, settings.postgres_url))


def open_queries(settings: Settings) -> Queries:
    """Return queries of the live read model, which need not exist."""
    if settings.postgres_url is None:
        return SQLiteQueries(live_path(settings.read_model_path))
    with _postgres_driver():
        from projector.read_model.postgres import PostgresQueries
    return PostgresQueries(_server(settings, settings.query_url or settings.postgres_url))


def reconciliation_lock(settings: Settings) -> contextlib.AbstractContextManager[None]:
    """Return the lock that a run holds, on all machines. Entering it raises AlreadyRunning."""
    if settings.postgres_url is None:
        return file_lock(f"{settings.database_path}.reconciliation")
    return postgres_lock(_server(settings, settings.postgres_url))


def check_stores(stores: Stores, queries: Queries, *, failure: str | None = None) -> Health:
    """Return the health of the projections. Raises StoreUnavailable and ReadModelUnavailable."""
    names = [projection.name for projection in PROJECTIONS]
    return check_health(stores.events, stores.quarantine, queries, names, failure=failure)


def read_status(settings: Settings, stores: Stores, queries: Queries, health: Health) -> Status:
    """Return the status. Raises StoreUnavailable and ReadModelUnavailable."""
    generations = open_generations(settings)
    newest = stores.events.read(health.head - 1, 1) if health.head else []
    return status_of(
        health,
        _counts(queries),
        spool_status(settings.spool_path) if settings.spool_path else SpoolStatus(0, 0),
        generations.rebuild_progress(),
        last_callback_ms=newest[0].event.recorded_at if newest else None,
        has_worker=generations.has_worker(),
    )


def _counts(queries: Queries) -> Counts:
    try:
        with queries.session() as session:
            return session.counts()
    except NoReadModel:
        return Counts(0, 0, 0, 0)


class Links(NamedTuple):
    """What connects a process to the others of one `serve`.

    `appended` wakes projections, each of `projected` a process that answers queries; `woken` is this process's own.
    """

    board: Board
    appended: Wakeup | None = None
    projected: Sequence[Wakeup] = ()
    woken: Wakeup | None = None
    query_processes: int = 1

    def wake_queries(self) -> None:
        for wakeup in self.projected:
            wakeup.wake()


def create_server_app(
    settings: Settings, roles: Sequence[Role], links: Links, callbacks_port: int | None = None
) -> ASGIApp:
    """Return the application of a process with these roles. Callbacks may have a port of their own.

    Raises StoreUnavailable, ReadModelUnavailable and WrongSetting.
    """
    stores = open_stores(settings, allow_unavailable=_has_spool(settings))
    worker = _worker(settings, stores) if "projections" in roles else None
    wake = worker.wake if worker else links.appended.wake if links.appended else _do_nothing
    forwarding = _forwarding(settings, stores, wake) if "callbacks" in roles else None
    spooled = forwarding.status if forwarding else None
    queries, health_queries = _queries_for_threads(settings), open_queries(settings)
    health_lock = threading.Lock()

    def health() -> Health:
        failure = worker.failure if worker else links.board.failure(PROJECTIONS_PROCESS)
        with health_lock:
            return check_stores(stores, health_queries, failure=failure)

    def status() -> Status:
        current = health()
        with health_lock:
            return read_status(settings, stores, health_queries, current)

    metrics = Metrics(health, spooled, links.board)
    commit = GroupCommit(forwarding.append if forwarding else stores.events.append, on_commit=wake)
    ingest = Ingest(settings, commit, (forwarding or stores.quarantine).keep, metrics) if "callbacks" in roles else None
    runner = _query_runner(settings, stores.events, queries, links) if "queries" in roles else None
    open_resources = (queries, health_queries, stores.events)
    return create_app(
        Components(
            health=health,
            metrics=metrics,
            running=partial(_running, worker, ingest, commit, forwarding, open_resources, runner, links.woken),
            board=links.board,
            ingest=ingest,
            queries=runner,
            spooled=spooled,
            status=status,
            reconciliation=stores.events.reconciliations.newest,
            read_tokens=settings.read_tokens,
            callbacks_port=callbacks_port,
            passes_on=links.appended is not None,
            query_processes=links.query_processes,
            source=f"/apps/{settings.sdk_app_id}" if settings.sdk_app_id else "/apps",
        )
    )


def run_projections(settings: Settings, links: Links, stopping: Wakeup, on_ready: Callable[[], None]) -> None:
    """Project until woken by `stopping`, in a process that does nothing else. Raises StoreUnavailable, WrongSetting."""
    assert links.appended is not None
    stores = open_stores(settings, allow_unavailable=_has_spool(settings))
    worker = _worker(settings, stores, on_project=links.wake_queries)
    with contextlib.closing(stores.events), worker:
        on_ready()
        while True:
            woken, _, _ = select.select([links.appended, stopping], [], [], _REPORT_S)
            if stopping in woken:
                return
            if woken:
                links.appended.clear()
                worker.wake()
            links.board.save_failure(PROJECTIONS_PROCESS, worker.failure)


def _has_spool(settings: Settings) -> bool:
    """Tell whether there is a spool from an earlier run, which takes callbacks while the database is down."""
    return settings.spool_path is not None and Path(settings.spool_path).exists()


def _query_runner(settings: Settings, store: EventStore, queries: Queries, links: Links) -> QueryRunner:
    # A file is read faster than another thread starts; a database server may keep a query waiting.
    on_server = settings.postgres_url is not None
    return QueryRunner(
        store,
        QueriesOfStore(queries, store),
        threads=settings.pool_size if on_server else _QUERY_THREADS,
        short_at_once=not on_server,
        poll_s=_POLL_S if links.woken else POLL_S,
        max_cached_bytes=MAX_BYTES // links.query_processes,
        max_waiting=MAX_WAITING // links.query_processes,
    )


def _queries_for_threads(settings: Settings) -> Queries:
    if settings.postgres_url is None:
        return QueriesPool(partial(open_queries, settings))
    return open_queries(settings)


@contextlib.asynccontextmanager
async def _running(
    worker: Worker | None,
    ingest: Ingest | None,
    commit: GroupCommit,
    forwarding: StoreAndForward | None,
    open_resources: Sequence[EventStore | Queries],
    runner: QueryRunner | None,
    woken: Wakeup | None,
) -> AsyncIterator[None]:
    """Start what runs in the background; in the end, append what was accepted, project it, and close everything."""
    with worker or contextlib.nullcontext(), _waking(runner, woken):
        if forwarding:
            forwarding.start()
        yield
        if ingest:
            ingest.close()
        await commit.close()
        if forwarding:
            await to_thread.run_sync(forwarding.stop)
    for resource in open_resources:
        resource.close()


@contextlib.contextmanager
def _waking(runner: QueryRunner | None, woken: Wakeup | None) -> Iterator[None]:
    """Wake the clients that wait whenever another process wakes this one."""
    if runner is None or woken is None:
        yield
        return

    def wake() -> None:
        woken.clear()
        runner.wake()

    loop = asyncio.get_running_loop()
    loop.add_reader(woken, wake)
    try:
        yield
    finally:
        loop.remove_reader(woken)


def _worker(settings: Settings, stores: Stores, on_project: Callable[[], None] = _do_nothing) -> Worker:
    url = settings.postgres_url or f"sqlite:///{settings.database_path}"
    without_file = {name: value for name, value in os.environ.items() if name != "PROJECTOR_DATABASE_URL_FILE"}
    return Worker(
        stores.events,
        open_generations(settings),
        PROJECTIONS,
        linger_s=_REMOTE_LINGER_S if settings.postgres_url else LINGER_S,
        environment={**without_file, "PROJECTOR_DATABASE_URL": url},
        on_project=on_project,
        reconcile_every_s=settings.rest.every_s if settings.rest else None,
    )


def _forwarding(settings: Settings, stores: Stores, on_forward: Callable[[], None]) -> StoreAndForward | None:
    spool = open_spool(settings, stores.events, create=True)
    return StoreAndForward(stores.events, stores.quarantine, spool, on_forward) if spool else None
