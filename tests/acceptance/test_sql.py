"""The documented views: read by the programs of others, at the same names over every replay, and in nobody's way."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import psycopg.rows
import pytest

from projector.bootstrap import open_events, open_generations
from projector.settings import read_settings
from tests import kinds, oracle
from tests.kinds import query_row, settings
from tests.processes.databases import begin_read_model, checkpoints, history, write
from tests.running import run_cli

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20260303
DATASETTE = Path(sysconfig.get_path("scripts"), "datasette")
only_postgresql = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    database = tmp_path / "events.db"
    write(database, range(1, 61), SEED)
    assert run_cli(database, "replay").returncode == 0
    return database


def datasette(file: Path, query: str, **arguments: str) -> list[dict[str, Any]]:
    """Return the rows that Datasette shows."""
    name = file.stem.replace(".", "~2E")
    address = f"/{name}.json?{urlencode({'sql': query, '_shape': 'array', **arguments})}"
    done = subprocess.run([DATASETTE, file, "--get", address], capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def psql(database: Path, query: str, **arguments: str) -> list[dict[str, Any]]:
    with psycopg.connect(kinds.url_of(database), row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(query.replace(":group_id", "%(group_id)s"), arguments).fetchall()


def read_current(database: Path, query: str, **arguments: str) -> list[dict[str, Any]]:
    if kinds.on_postgresql():
        return psql(database, query, **arguments)
    return datasette(Path(f"{database}.read-model.current"), query, **arguments)


def read_history(database: Path, query: str) -> list[dict[str, Any]]:
    return psql(database, query) if kinds.on_postgresql() else datasette(database, query)


def test_the_views_show_what_the_oracle_says(database: Path) -> None:
    expected = oracle.everything(oracle.facts(history(database)))
    groups = read_current(database, "SELECT * FROM current_groups ORDER BY group_id")
    for group in groups:
        for name in ("custom_fields", "attributes"):
            group[name] = json.loads(group[name])
    for group, _ in expected.values():
        del group["verified_at"]  # it is no part of the read model
    assert groups == [group for group, _ in expected.values()]
    for group_id, (_, members) in expected.items():
        query = "SELECT * FROM current_members WHERE group_id = :group_id ORDER BY user_id"
        rows = read_current(database, query, group_id=group_id)
        assert [row.pop("joined_at_ms") > 0 for row in rows] == [True] * len(members)
        assert rows == [{"group_id": group_id, **member} for member in members.values()]
        documented = "SELECT user_id FROM current_members WHERE group_id = :group_id"
        ids = read_current(database, documented, group_id=group_id)
        assert sorted(row["user_id"] for row in ids) == [*members]


def test_the_events_are_shown_without_bodies(database: Path) -> None:
    rows = read_history(database, "SELECT * FROM group_events ORDER BY position")
    assert [(row["position"], row["group_id"], row["version"], row["type"]) for row in rows] == [
        (recorded.position, recorded.event.group_id, recorded.version, recorded.event.TOPIC)
        for recorded in history(database)
    ]
    for row, recorded in zip(rows, history(database), strict=True):
        for name in ("occurred_at", "recorded_at"):
            ms = getattr(recorded.event, name)
            assert (row[name], row[f"{name}_ms"]) == (oracle.rfc3339(ms), ms)


def test_after_a_replay_they_show_the_new_read_model_at_the_same_names(database: Path) -> None:
    write(database, range(61, 121), SEED)
    for arguments in (["replay"], ["replay", "--rollback"]):
        assert run_cli(database, *arguments).returncode == 0
        (row,) = read_current(database, "SELECT MAX(position) AS position FROM current_groups")
        assert row["position"] == max(
            group["position"] for group, _ in oracle.everything(oracle.facts(history(database))).values()
        )
        assert {*checkpoints(database).values()} == {120}


@only_postgresql
def test_an_open_transaction_of_a_reader_blocks_no_replay_and_the_views_follow_later(database: Path) -> None:
    with psycopg.connect(kinds.url_of(database)) as reader:
        before = reader.execute("SELECT * FROM current_members").fetchall()
        for _ in range(3):
            assert run_cli(database, "replay").returncode == 0
        assert reader.execute("SELECT * FROM current_members").fetchall() == before
        assert shown(database) != kinds.generations(database)[-1]
        reader.rollback()
    with closing(begin_read_model(database)) as read_model:
        assert shown(database) == kinds.generations(database)[-1]
        assert read_model.try_lead()


@only_postgresql
def test_the_worker_switches_views_that_a_reader_has_kept(database: Path) -> None:
    with psycopg.connect(kinds.url_of(database)) as reader:
        reader.execute("SELECT * FROM current_groups").fetchall()
        assert run_cli(database, "replay").returncode == 0
        assert shown(database) != kinds.generations(database)[-1]
    with closing(open_generations(settings(database)).live()) as read_model:
        assert read_model.try_lead()
    assert shown(database) == kinds.generations(database)[-1]


def shown(database: Path) -> str:
    """The schema of the tables below the views."""
    name = "substring(definition from 'read_model_v[0-9]+_[0-9]+')"
    query = f"SELECT {name} FROM pg_views WHERE viewname = 'current_members'"
    return str(query_row(database, query)[0])


def test_where_a_compressor_or_cipher_is_set_there_is_no_view_of_events(database: Path, tmp_path: Path) -> None:
    assert has_view(database)
    compressed = tmp_path / "compressed.db"
    environment = {"PROJECTOR_DATABASE_URL": kinds.url_of(compressed), "COMPRESSOR_TOPIC": "zlib"}
    open_and_use(open_events(read_settings(environment)))
    assert not has_view(compressed)
    open_and_use(open_events(settings(compressed)))
    assert has_view(compressed)
    open_and_use(open_events(read_settings(environment)))
    assert not has_view(compressed)


def open_and_use(store: Any) -> None:
    with closing(store):
        store.head()


def has_view(database: Path) -> bool:
    query = (
        "SELECT COUNT(*) FROM pg_views WHERE viewname = 'group_events'"
        if kinds.on_postgresql()
        else "SELECT COUNT(*) FROM sqlite_master WHERE type = 'view' AND name = 'group_events'"
    )
    return query_row(database, query) == (1,)
