"""Commands that only look, at stores of other versions and at databases of other programs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from projector.bootstrap import open_stores
from projector.event_store.quarantine import UnreadableRequest
from projector.settings import Settings
from tests import kinds
from tests.frozen.frozen import VERSIONS
from tests.processes.databases import write
from tests.running import run_cli

if TYPE_CHECKING:
    from pathlib import Path

    from tests.frozen.frozen import Frozen
    from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.slow  # every test here starts processes

LOOKING = [
    "status",
    "verify",
    "events",
    "quarantine list",
    "quarantine show 1",
    "replay --check",
    "forget --dry-run ann",
]
WITHOUT_READ_MODEL = {"status": 1, "verify": 2, "replay --check": 2}
"""The exit statuses of commands that look at the read model when there is none of this version."""

WRITING = ["replay", "quarantine retry", "quarantine drop 1", "forget ann"]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_no_command_but_serve_changes_a_database_of_another_program(tmp_path: Path, journal: str) -> None:
    foreign = tmp_path / "contacts.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("CREATE TABLE contacts (name TEXT)")
    before = foreign.read_bytes()
    for command in [*LOOKING, *WRITING]:
        done = run_cli(foreign, *command.split())
        assert (done.returncode, done.stdout) == (2, ""), command
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"projector: {foreign} is not an event store: it has no tables stored_events, ")
    assert foreign.read_bytes() == before
    assert [*tmp_path.iterdir()] == [foreign]


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_commands_that_look_create_nothing_in_an_empty_postgresql_database(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    kinds.point(tmp_path / "empty.db", url := postgresql.new_database())
    for command in LOOKING:
        done = run_cli(tmp_path / "empty.db", *command.split())
        assert (done.returncode, done.stdout) == (2, ""), command
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"projector: the database {url.rpartition('/')[2]} is not an event store: ")
    with psycopg.connect(url) as server:
        query = "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname = 'public'"
        assert server.execute(query).fetchall() == []


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.folder.name)
def test_commands_that_look_read_a_store_of_an_earlier_version_and_add_no_table(
    tmp_path: Path, version: Frozen
) -> None:
    database = version.unpack("plain", tmp_path)
    before = tables(database)
    for command in LOOKING:
        done = run_cli(database, *command.split())
        expected = WITHOUT_READ_MODEL.get(command, 0)
        assert done.returncode == expected, (command, done.stdout, done.stderr)
    assert tables(database) == before


@pytest.mark.usefixtures("kind")
def test_commands_that_look_leave_no_file_behind(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 4), 1)
    before = sorted(tmp_path.iterdir())
    for command in ("events", "quarantine list", "forget --dry-run ann"):
        assert run_cli(database, *command.split()).returncode == 0
        assert sorted(tmp_path.iterdir()) == before, command


def test_a_store_opened_to_be_read_refuses_to_be_written(tmp_path: Path) -> None:
    settings = Settings(database_path=str(tmp_path / "events.db"))
    open_stores(settings).events.close()
    stores = open_stores(settings, read_only=True)
    with closing(stores.events), pytest.raises(Exception, match="attempt to write a readonly database"):
        stores.quarantine.keep(UnreadableRequest(b"x", "why", None, None, 1))


def tables(database: Path) -> list[str]:
    if kinds.on_postgresql():
        with psycopg.connect(kinds.url_of(database)) as server:
            query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            return [name for (name,) in server.execute(query) if not name.startswith("read_model")]
    with closing(sqlite3.connect(database)) as connection:
        return [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        ]
