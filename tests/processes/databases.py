"""What is in a database's files, seen without a server."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projector.bootstrap import PROJECTIONS, open_generations, open_queries, open_stores
from tests import oracle, shown
from tests.kinds import settings
from tests.processes.traffic import candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projector.domain.events import Recorded
    from projector.projection import Projection
    from projector.read_model.sqlite import SQLiteReadModel
    from tests.running import Server


def read_model(database: Path) -> Path:
    return Path(f"{database}.read-model")


def begin_read_model(database: Path, projections: Sequence[Projection] = PROJECTIONS) -> SQLiteReadModel:
    """Make an empty read model the live one, and open it."""
    generations = open_generations(settings(database))
    versions = {projection.name: projection.version for projection in projections}
    with generations.building() as generation:
        generation.begin(versions, afresh=versions).finish()
        generation.promote()
    return generations.live()


def write(database: Path, serials: Sequence[int], seed: int) -> None:
    """Record callbacks without a server, and so without a read model."""
    events = open_stores(settings(database)).events
    for first in range(0, len(serials), 1_000):
        events.append(candidates(serials[first : first + 1_000], seed))
    events.close()


def history(database: Path) -> list[Recorded]:
    """Everything recorded, in order."""
    events = open_stores(settings(database)).events
    try:
        return events.read(0, 1_000_000)
    finally:
        events.close()


def copied(database: Path, directory: Path) -> Path:
    """Copy a database as it is, so that looking does not put in order what the last process left."""
    directory.mkdir()
    for file in database.parent.glob(f"{database.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, directory, follow_symlinks=False)
    return directory / database.name


def checkpoints(database: Path) -> dict[str, int]:
    """The position of each projection; empty while there is no read model."""
    if not read_model(database).exists():
        return {}
    with closing(sqlite3.connect(f"file:{read_model(database)}?mode=ro", uri=True, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchone():
            return {}
        return dict(connection.execute("SELECT projection, position FROM checkpoints").fetchall())


def rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the read model, by table."""
    with closing(sqlite3.connect(read_model(database), timeout=30)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables}


def generations(database: Path) -> list[str]:
    """The files of read models, live or not."""
    return sorted(
        file.name
        for file in database.parent.iterdir()
        if file.name.startswith(f"{database.name}.read-model.") and file.suffix[1:].isdigit()
    )


def change_read_model(database: Path, statement: str) -> None:
    """Change exactly one row behind everybody's back."""
    with closing(sqlite3.connect(read_model(database), isolation_level=None, timeout=30)) as connection:
        assert connection.execute(statement).rowcount == 1


def projected(database: Path) -> dict[str, Any]:
    """Every group with its members, as the read model has it."""
    queries = open_queries(settings(database))
    try:
        with queries.snapshot() as snapshot:
            return shown.stored(snapshot)
    finally:
        queries.close()


def served(server: Server, groups: Sequence[str], *, position: int) -> dict[str, Any]:
    """Every one of these groups with its members, as `/v1` answers once that position is reached."""
    return {
        group_id: (server.group(group_id, wait_for=position), server.members(group_id, wait_for=position))
        for group_id in groups
    }


def assert_served_as_recorded(server: Server, database: Path) -> None:
    """What `/v1` answers is what the contract says of the recorded events."""
    recorded = history(database)
    expected = oracle.everything(oracle.facts(recorded))
    assert served(server, [*expected], position=len(recorded)) == expected
    listed = server.get("/v1/groups", limit=1000).raise_for_status().json()["groups"]
    assert listed == [group for group, _ in expected.values()]
