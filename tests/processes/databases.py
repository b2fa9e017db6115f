"""The contents of a database, read and changed without a server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from projector.bootstrap import PROJECTIONS, open_generations, open_queries, open_stores
from projector.event_store import reading
from projector.read_model import NoReadModel
from projector.read_model.schema import TABLES
from tests import kinds, oracle, shown
from tests.kinds import settings
from tests.processes.traffic import candidates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from projector.domain.events import Recorded
    from projector.read_model import ReadModel
    from tests.running import Server

VERSIONS = {projection.name: projection.version for projection in PROJECTIONS}


def read_model(database: Path) -> Path:
    return kinds.live_file(database)


def begin_read_model(database: Path, versions: Mapping[str, int] = VERSIONS) -> ReadModel:
    """Make an empty read model the live one, and open it."""
    generations = open_generations(settings(database))
    with generations.begin_rebuild() as generation:
        generation.create(versions, 0).finish()
        generation.promote()
    return generations.live()


def write(database: Path, serials: Sequence[int], seed: int) -> None:
    """Record callbacks without a server, and so without a read model."""
    events = open_stores(settings(database)).events
    for first in range(0, len(serials), 1_000):
        events.append(candidates(serials[first : first + 1_000], seed))
    events.close()


def history(database: Path) -> list[Recorded]:
    """All recorded events, in order."""
    with closing(open_stores(settings(database)).events) as events:
        return [*reading.history(events, 0, 10_000)]


def checkpoints(database: Path) -> dict[str, int]:
    """The position of each projection; empty while there is no read model."""
    try:
        with closing(open_generations(settings(database)).live(timeout_s=30)) as model, model.read_transaction() as now:
            return {name: checkpoint.position for name, checkpoint in now.checkpoints().items()}
    except NoReadModel:
        return {}


def spooled(database: Path) -> int:
    """The number of events in the spool that the receivers share."""
    with closing(sqlite3.connect(f"{database}.spool", timeout=30)) as spool:
        return int(spool.execute("SELECT COUNT(*) FROM spool").fetchone()[0])


def rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the read model, by table."""
    with kinds.read_model(database) as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(f"SELECT * FROM {table.name}").fetchall()), key=repr)
            for table in TABLES
        }


def change_read_model(database: Path, statement: str) -> None:
    """Change exactly one row while no projection knows of it."""
    with kinds.read_model(database) as connection:
        assert connection.execute(statement).rowcount == 1


def lose_read_model(database: Path) -> None:
    """Delete the live read model, as an administrator might by mistake."""
    if kinds.on_postgresql():
        kinds.change_events(database, "DROP TABLE public.read_models")
    else:
        read_model(database).unlink()


def outdate_read_model(database: Path) -> None:
    """Give the live read model a schema version unknown to this code."""
    with kinds.read_model(database) as connection:
        if kinds.on_postgresql():
            connection.execute("UPDATE public.read_models SET schema_version = 99")
            connection.execute("DROP TABLE profiles CASCADE")
        else:
            connection.execute("PRAGMA user_version = 99")
            connection.execute("DROP TABLE profiles")


def projected(database: Path) -> dict[str, Any]:
    """Every group with its members, from the read model."""
    queries = open_queries(settings(database))
    try:
        with queries.session() as session:
            return shown.stored(session)
    finally:
        queries.close()


def served(server: Server, groups: Sequence[str], *, position: int) -> dict[str, Any]:
    """These groups with their members, as `/v1` shows them once that position is reached."""
    return {
        group_id: (server.group(group_id, wait_for=position), server.members(group_id, wait_for=position))
        for group_id in groups
    }


def assert_served_as_recorded(server: Server, database: Path) -> None:
    """`/v1` shows the state that follows from the recorded events, in the fields that the server's version has."""
    recorded = history(database)
    known = server.get("/openapi.json").json()["components"]["schemas"]["Group"]["properties"]
    expected = {
        group_id: ({name: value for name, value in group.items() if name in known}, members)
        for group_id, (group, members) in oracle.everything(oracle.facts(recorded)).items()
    }
    assert served(server, [*expected], position=len(recorded)) == expected
    listed = server.get("/v1/groups", limit=1000).raise_for_status().json()["groups"]
    assert listed == [group for group, _ in expected.values()]
