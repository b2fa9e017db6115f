"""Projects events into a read model, and compares the result with the oracle's."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from projector.bootstrap import open_generations, open_queries
from projector.projection import project
from tests import kinds, oracle, shown
from tests.domain.strategies import GROUPS, USERS
from tests.processes.databases import begin_read_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from projector.domain.events import Recorded
    from projector.projection import Projection
    from projector.read_model import ReadModel
    from projector.read_model.query_session import QuerySession
    from projector.read_model.rows import SetAside

NOW = 1_700_000_000_000


@contextmanager
def scratch(name: str = "scratch") -> Iterator[Path]:
    """A database with an empty read model, for a single example."""
    with TemporaryDirectory() as directory:
        database = kinds.empty_database(Path(directory), name)
        begin_read_model(database).close()
        yield database


@contextmanager
def opened(database: Path) -> Iterator[ReadModel]:
    with closing(open_generations(kinds.settings(database)).live()) as read_model:
        yield read_model


@contextmanager
def snapshot(database: Path) -> Iterator[QuerySession]:
    with closing(open_queries(kinds.settings(database))) as queries, queries.session() as now:
        yield now


def notes(read_model: ReadModel) -> list[SetAside]:
    with read_model.read_transaction() as now:
        return now.set_aside_events()


def carry(read_model: ReadModel, batch: Sequence[Recorded], projections: Sequence[Projection]) -> None:
    with read_model.transaction() as work:
        project(work, projections, batch, now_ms=NOW)


def expected(history: Sequence[Recorded]) -> dict[str, Any]:
    return oracle.everything(oracle.facts(history))


def assert_shows(database: Path, history: Sequence[Recorded]) -> None:
    """Compare query results and tables with the oracle's state for the history."""
    state = expected(history)
    with snapshot(database) as now:
        assert shown.stored(now) == state
        assert now.counts()._asdict() == {
            "groups": len(state),
            "active_groups": sum(group["status"] == "active" for group, _ in state.values()),
            "full_groups": sum(group["is_full"] for group, _ in state.values()),
            "members": sum(len(members) for _, members in state.values()),
        }
        for group_id in GROUPS:
            group = now.group(group_id)
            assert (group and shown.as_sent(group)) == state.get(group_id, (None,))[0]
            for user in USERS:
                member = now.member(group_id, user)
                assert (member and shown.as_sent(member)) == state.get(group_id, ({}, {}))[1].get(user)
        for user in USERS:
            assert shown.as_sent(now.groups_of(user, "", 1000)) == oracle.groups_of(oracle.facts(history), user)
    assert_counts_are_the_rows(database)


def assert_counts_are_the_rows(database: Path) -> None:
    with kinds.read_model(database) as connection:
        wrong_counts = connection.execute(
            "SELECT group_id, member_count FROM groups WHERE member_count <>"
            " (SELECT COUNT(*) FROM members WHERE members.group_id = groups.group_id"
            " AND (entered_at, entered_position) > (roster_floor_at, roster_floor_position))"
        ).fetchall()
        without_group = connection.execute(
            "SELECT group_id, user_id FROM members WHERE group_id NOT IN (SELECT group_id FROM groups)"
        ).fetchall()
    assert (wrong_counts, without_group) == ([], [])
