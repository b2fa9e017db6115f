"""The only place where objects meet: settings in, a store, a read model or a whole application out."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from projector.domain.events import UndecodableEvent
from projector.event_store.group_commit import GroupCommit
from projector.event_store.sqlite import open_sqlite
from projector.http.app import Parts, create_app
from projector.http.health import Health, look
from projector.http.ingest import Ingest
from projector.http.metrics import Metrics
from projector.http.queries import Questions
from projector.projection.fullness import FullnessProjection
from projector.projection.membership import MembershipProjection
from projector.projection.profile import ProfileProjection
from projector.read_model.sqlite import SQLiteReadModel
from projector.read_model.sqlite_queries import SQLiteQueries
from projector.settings import Settings, WrongSetting
from projector.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from starlette.types import ASGIApp

    from projector.event_store import EventStore, Quarantine
    from projector.projection import Projection

Part = Literal["callbacks", "queries", "projections"]

PROJECTIONS: Final[tuple[Projection, ...]] = (MembershipProjection(), ProfileProjection(), FullnessProjection())


class Stores(NamedTuple):
    """Where events go, and where what could not become one waits."""

    events: EventStore
    quarantine: Quarantine


def open_stores(settings: Settings) -> Stores:
    """Open the event store. Raises StoreUnavailable, and WrongSetting if its events cannot be decoded."""
    stores = Stores(*open_sqlite(settings.database_path, dict(settings.library)))
    if head := stores.events.head():
        ends = [stores.events.read(position, 1)[0].event for position in (0, head - 1)]
        if all(isinstance(event, UndecodableEvent) for event in ends):
            reason = ends[0].reason if isinstance(ends[0], UndecodableEvent) else ""
            raise WrongSetting(
                f"the stored events cannot be read ({reason}); set COMPRESSOR_TOPIC, CIPHER_TOPIC and CIPHER_KEY"
                " as they were when the events were written"
            )
    return stores


def open_read_model(settings: Settings) -> SQLiteReadModel:
    """Open, and create where missing, the read model for writing. Raises ReadModelUnavailable."""
    return SQLiteReadModel(settings.read_model_path)


def open_queries(settings: Settings) -> SQLiteQueries:
    """Open the read model for questions. Raises ReadModelUnavailable."""
    open_read_model(settings).close()
    return SQLiteQueries(settings.read_model_path)


def look_at(stores: Stores, queries: SQLiteQueries, *, failure: str | None = None) -> Health:
    """Return the health of the projections. Raises StoreUnavailable and ReadModelUnavailable."""
    return look(stores.events, stores.quarantine, queries, [one.name for one in PROJECTIONS], failure=failure)


def create_server_app(settings: Settings, parts: Sequence[Part]) -> ASGIApp:
    """Return the application of one process that serves these parts.

    Raises StoreUnavailable, ReadModelUnavailable and WrongSetting.
    """
    stores = open_stores(settings)
    read_model = open_read_model(settings)
    subscription = Subscription(stores.events, read_model, PROJECTIONS) if "projections" in parts else None
    queries = open_queries(settings)

    def health() -> Health:
        failure = subscription.failure if subscription else None
        return look_at(stores, queries, failure=failure)

    metrics = Metrics(health)
    commit = GroupCommit(stores.events.append, on_commit=subscription.wake if subscription else _nobody_to_wake)

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        with _projecting(subscription):
            yield
            await commit.close()
        queries.close()
        read_model.close()
        stores.events.close()

    return create_app(
        Parts(
            health=health,
            metrics=metrics,
            running=running,
            ingest=Ingest(settings, commit, stores.quarantine, metrics) if "callbacks" in parts else None,
            questions=Questions(stores.events, queries) if "queries" in parts else None,
            read_tokens=settings.read_tokens,
        )
    )


@contextlib.contextmanager
def _projecting(subscription: Subscription | None) -> Iterator[None]:
    if subscription is None:
        yield
        return
    thread = threading.Thread(target=subscription.run, name="projections")
    thread.start()
    try:
        yield
    finally:
        subscription.stop()
        thread.join()


def _nobody_to_wake() -> None:
    """Projections run in another process, which looks at the store by itself."""
