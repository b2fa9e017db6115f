"""A read model of other events than those in the store is neither served nor called ready nor added to."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from projector.bootstrap import PROJECTIONS, check_stores, open_generations, open_queries, open_stores
from projector.projection.origin import QueriesOfStore
from projector.read_model import NoReadModel
from projector.replay.replay import Replay
from projector.subscription import Subscription
from tests.kinds import copied, settings
from tests.processes.databases import checkpoints, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("meanwhile", [0, 10, 100])
def test_a_read_model_ahead_of_or_not_of_the_log_is_not_served_not_ready_and_not_added_to(
    tmp_path: Path, meanwhile: int
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 51), 7)
    backup = copied(database, tmp_path / "backup")
    write(database, range(51, 101), 7)
    with closing(open_stores(settings(database)).events) as store:
        Replay(store, open_generations(settings(database)), PROJECTIONS).rebuild()
    for file in tmp_path.glob("events.db-*"):
        file.unlink()
    backup.replace(database)
    write(database, range(201, 201 + meanwhile), 7)
    stores = open_stores(settings(database))
    with (
        closing(stores.events) as store,
        closing(QueriesOfStore(open_queries(settings(database)), store)) as queries,
        closing(open_generations(settings(database)).live()) as read_model,
    ):
        subscription = Subscription(store, read_model, PROJECTIONS)
        thread = threading.Thread(target=subscription.run)
        thread.start()
        try:
            until(lambda: subscription.failure)
            write(database, range(401, 501), 7)
            subscription.wake()
            with pytest.raises(NoReadModel, match="built from other events"), queries.session():
                pass
            (complaint,) = check_stores(stores, open_queries(settings(database))).complaints()[:1]
            assert "built from other events" in complaint
            assert set(checkpoints(database).values()) == {100}
            assert Replay(store, open_generations(settings(database)), PROJECTIONS).rebuild_if_needed()
            until(lambda: subscription.failure is None)
            write(database, range(601, 611), 7)
            until(lambda: set(checkpoints(database).values()) == {160 + meanwhile})
            with queries.session() as session:
                assert set(session.positions().values()) == {160 + meanwhile}
            assert check_stores(stores, open_queries(settings(database))).complaints() == []
        finally:
            subscription.stop()
            thread.join()
