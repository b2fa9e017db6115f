"""Every command of docs/operations.md, run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kinds import point, url_of
from tests.processes.databases import assert_served_as_recorded, history, write
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.slow  # every test here starts processes

SEED = 20240901
OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
SQLITE_OUT, SQLITE_IN, POSTGRESQL_OUT, POSTGRESQL_IN, FORGET = re.findall(r"```sh\n(.*?)```", OPERATIONS, re.DOTALL)


def shell(commands: str, folder: Path, **environment: str) -> None:
    subprocess.run(["sh", "-ec", commands], cwd=folder, check=True, env=os.environ | environment, timeout=60)


def test_a_backup_of_sqlite_made_beside_the_server_is_restored_and_projected_again(tmp_path: Path) -> None:
    database = tmp_path / "projector.db"
    write(database, range(1, 301), SEED)
    with serving(database):
        shell(SQLITE_OUT, tmp_path)
        backed_up = history(database)
        write(database, range(301, 401), SEED)
    shell(SQLITE_IN, tmp_path)
    assert history(database) == backed_up
    with serving(database) as server:
        assert_served_as_recorded(server, database)
    assert run_cli(database, "replay", "--check").returncode == 0


def test_the_commands_that_forget_people_do_so(tmp_path: Path) -> None:
    database = tmp_path / "projector.db"
    write(database, range(1, 101), SEED)
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell(FORGET, tmp_path, PROJECTOR_DATABASE_URL=url_of(database), PATH=tools)
    assert {"user7", "user8"}.isdisjoint(re.findall(r"\w+", repr(history(database))))


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_backup_of_postgresql_made_beside_servers_is_restored_and_projected_again(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    database, restored = tmp_path / "events.db", tmp_path / "restored.db"
    tools = f"{postgresql.binaries}:{os.environ['PATH']}"
    write(database, range(1, 301), SEED)
    with serving(database):
        shell(POSTGRESQL_OUT, tmp_path, PROJECTOR_DATABASE_URL=url_of(database), PATH=tools)
        backed_up = history(database)
        write(database, range(301, 401), SEED)
    point(restored, postgresql.new_database())
    shell(POSTGRESQL_IN, tmp_path, PROJECTOR_DATABASE_URL=url_of(restored), PATH=tools)
    assert history(restored) == backed_up
    with serving(restored) as server:
        assert_served_as_recorded(server, restored)
        write(restored, range(301, 401), SEED)
        assert [recorded.position for recorded in history(restored)] == list(range(1, 401))
    assert run_cli(restored, "replay", "--check").returncode == 0


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_the_user_needs_to_create_tables_and_schemas_in_its_database_and_nothing_more(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    database = tmp_path / "events.db"
    name = postgresql.new_database().rpartition("/")[2]
    postgresql.execute("CREATE ROLE modest LOGIN")
    postgresql.execute(f"ALTER DATABASE {name} OWNER TO modest")
    point(database, postgresql.url(name).replace("postgres@", "modest@"))
    with serving(database) as server:
        write(database, range(1, 101), SEED)
        assert_served_as_recorded(server, database)
    assert run_cli(database, "replay").returncode == 0
