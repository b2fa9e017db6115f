"""The read model on SQLite: missing, foreign and broken files, and failing disks."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from projector.bootstrap import PROJECTIONS, open_queries
from projector.read_model import NoReadModel, ReadModelUnavailable
from tests.domain import facts as f
from tests.kinds import generations, settings
from tests.processes.databases import begin_read_model, rows
from tests.processes.databases import read_model as read_model_file
from tests.projection.carrying import assert_shows, carry, notes, opened, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from projector.read_model.sqlite import SQLiteReadModel


@pytest.fixture
def database(tmp_path: Path) -> Path:
    database = tmp_path / "events.db"
    begin_read_model(database).close()
    return database


def test_events_applied_before_change_nothing_and_cost_no_write(database: Path) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob"), f.filled(2)])
    with opened(database) as read_model:
        carry(read_model, history, PROJECTIONS)
        before = rows(database)
        with closing(sqlite3.connect(read_model_file(database))) as watching:
            version = watching.execute("PRAGMA data_version").fetchone()
            carry(read_model, history, PROJECTIONS)
            carry(read_model, history[:2], PROJECTIONS)
            assert watching.execute("PRAGMA data_version").fetchone() == version
        assert rows(database) == before


STATEMENTS = ["SAVEPOINT", "SELECT", "INSERT INTO members", "UPDATE checkpoints", "RELEASE", "COMMIT"]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_fault_of_the_database_at_any_statement_is_never_blamed_on_an_event(database: Path, statement: str) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(database) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        before = rows(database)
        with failing_disk(read_model, statement), pytest.raises(ReadModelUnavailable):
            carry(read_model, history[1:], PROJECTIONS)
        assert rows(database) == before
        carry(read_model, history[1:], PROJECTIONS)
    assert_shows(database, history)


@contextmanager
def failing_disk(read_model: SQLiteReadModel, statement: str) -> Iterator[None]:
    """Fail every statement that begins with this text as it fails when the disk has an error."""
    real = read_model._file.connection()
    read_model._file._connection = cast("sqlite3.Connection", FailingDisk(real, statement))
    try:
        yield
    finally:
        read_model._file._connection = real


class FailingDisk:
    """A connection on which one kind of statement fails with a disk error."""

    def __init__(self, real: sqlite3.Connection, statement: str) -> None:
        self._real = real
        self._statement = statement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, statement: str, *arguments: Any) -> Any:
        self._check(statement)
        return self._real.execute(statement, *arguments)

    def executemany(self, statement: str, *arguments: Any) -> Any:
        self._check(statement)
        return self._real.executemany(statement, *arguments)

    def _check(self, statement: str) -> None:
        if statement.startswith(self._statement):
            raise sqlite3.OperationalError("disk I/O error")


def test_a_full_disk_changes_nothing_and_projecting_continues_once_there_is_room_again(database: Path) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, *(f"{number:0500d}" for number in range(500)))])
    with opened(database) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        before = rows(database)
        (pages,) = read_model._file.connection().execute("PRAGMA page_count").fetchone()
        read_model._file.connection().execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(ReadModelUnavailable, match="full"):
            carry(read_model, history, PROJECTIONS)
        assert rows(database) == before
        read_model._file.connection().execute("PRAGMA max_page_count=1000000")
        carry(read_model, history, PROJECTIONS)
        assert notes(read_model) == []
    assert_shows(database, history)


def test_a_file_of_another_schema_counts_as_no_read_model(database: Path) -> None:
    with opened(database) as read_model:
        carry(read_model, f.recorded([f.created(0, "ann")]), PROJECTIONS)
    with closing(sqlite3.connect(read_model_file(database))) as connection:
        connection.execute("PRAGMA user_version=999")
    with opened(database) as read_model, pytest.raises(NoReadModel, match="another schema version"):
        notes(read_model)
    with pytest.raises(NoReadModel), snapshot(database):
        pass


def test_a_file_deleted_and_built_again_is_the_one_that_open_connections_read_and_write(database: Path) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(database) as read_model, closing(open_queries(settings(database))) as queries:
        carry(read_model, history, PROJECTIONS)
        with queries.session() as session:
            assert set(session.positions().values()) == {2}
        versions, names = {queries.version()}, set(generations(database))
        for file in database.parent.glob(f"{database.name}.read-model*"):
            file.unlink()
        with pytest.raises(NoReadModel), queries.session():
            pass
        with pytest.raises(NoReadModel):
            notes(read_model)
        assert queries.version() is None
        begin_read_model(database).close()
        assert names.isdisjoint(generations(database)), "a name is never used again"
        with queries.session() as session:
            assert set(session.positions().values()) == {0}
        carry(read_model, history[:1], PROJECTIONS)
        with queries.session() as session:
            assert set(session.positions().values()) == {1}
        assert queries.version() not in versions


def test_another_file_put_under_the_same_name_is_opened(database: Path) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    file = read_model_file(database).resolve()
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    with opened(database) as read_model, closing(open_queries(settings(database))) as queries:
        carry(read_model, history, PROJECTIONS)
        with queries.session() as session:
            assert set(session.positions().values()) == {2}
        version = queries.version()
        read_model.close()
        file.with_name(f"{file.name}-wal").unlink()
        copy.replace(file)
        with queries.session() as session:
            assert set(session.positions().values()) == {0}
        assert queries.version() != version


def test_reading_does_not_create_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NoReadModel, match="there is no read model yet"), snapshot(tmp_path / "events.db"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_database_is_reported_as_unavailable(database: Path) -> None:
    read_model_file(database).write_bytes(b"no database" * 1000)
    with pytest.raises(ReadModelUnavailable, match="SQLite"), snapshot(database):
        pass
