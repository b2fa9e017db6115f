"""Upgrades and downgrades: processes of a released version and of this one work on one database at the same time."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.kinds import generations
from tests.processes.databases import assert_served_as_recorded, history
from tests.processes.traffic import Ledger, pouring
from tests.processes.waiting import until
from tests.running import environment, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20260101


def assert_verified_by_both(database: Path, old: dict[str, str]) -> None:
    verified = []
    for settings in (old, {}):
        assert run_cli(database, "replay", "--if-needed", **settings).returncode == 0
        verified.append(run_cli(database, "verify", **settings))
    assert [done.returncode for done in verified] == [0, 0], verified
    digests = [done.stdout.splitlines()[1] for done in verified]
    assert digests[0].startswith("digest: ")
    assert digests[0] == digests[1]


def assert_served_by_all(*servers: Server, database: Path) -> None:
    for server in servers:
        head = len(history(database))
        until(lambda server=server, head=head: server.get("/v1/groups", wait_for=head).status_code == 200, of=server)
        assert_served_as_recorded(server, database)


def when_ready(server: Server, database: Path) -> list[str]:
    """Wait until a server is ready; return the read models there are then, of both versions."""
    until(lambda: server.get("/readyz").status_code == 200, of=server)
    return generations(database)


def test_old_processes_run_the_code_of_the_released_version(tmp_path: Path, old: dict[str, str]) -> None:
    for module in ("projector", "projector.cli"):
        command = [sys.executable, "-c", f"import {module}; print({module}.__file__)"]
        done = subprocess.run(command, env=environment(tmp_path, **old), capture_output=True, text=True)
        assert done.stdout.startswith(old["PYTHONPATH"]), done.stderr


def test_servers_are_upgraded_and_downgraded_under_load_without_loss_and_each_version_builds_its_read_model_once(
    tmp_path: Path, old: dict[str, str]
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with ExitStack() as running:
        older = running.enter_context(serving(database, **old))
        with pouring(older, ledger=ledger, senders=4, name="old"):
            ledger.wait_for(acknowledged=60)
        before = generations(database)

        newer = running.enter_context(serving(database))
        with pouring(older, newer, ledger=ledger, senders=4, name="upgrade"):
            ledger.wait_for(acknowledged=100)
            upgraded = when_ready(newer, database)
            assert ({*before} < {*upgraded}, len(upgraded)) == (True, len(before) + 1)
            assert older.stop() == 0
            ledger.wait_for(acknowledged=60)
        assert_served_by_all(newer, database=database)
        assert generations(database) == upgraded

        older = running.enter_context(serving(database, **old))
        with pouring(newer, older, ledger=ledger, senders=4, name="downgrade"):
            ledger.wait_for(acknowledged=100)
            downgraded = when_ready(older, database)
            assert downgraded == upgraded, "nothing was rebuilt"
        assert_served_by_all(newer, older, database=database)
        with pouring(newer, older, ledger=ledger, senders=4, name="after a kill"):
            ledger.wait_for(acknowledged=60)
            newer.kill()
            ledger.wait_for(acknowledged=60)
        assert_served_by_all(older, database=database)
    assert generations(database) == downgraded
    ledger.assert_kept(history(database))
    assert_verified_by_both(database, old)


def test_receivers_workers_and_query_servers_of_two_versions_replace_each_other(
    tmp_path: Path, old: dict[str, str]
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with ExitStack() as running:

        def start(part: str, settings: dict[str, str]) -> Server:
            return running.enter_context(serving(database, "--only", part, **settings))

        old_worker = start("projections", old)
        receivers = [start("callbacks", settings) for settings in (old, {})]
        queries = [start("queries", settings) for settings in (old, {})]
        new_worker = start("projections", {})
        with pouring(*receivers, ledger=ledger, senders=4):
            ledger.wait_for(acknowledged=100)
            assert old_worker.stop() == 0
            ledger.wait_for(acknowledged=100)
            head = len(history(database))
            until(lambda: reached(queries[1]) >= head, of=queries[1])
            assert queries[0].get("/v1/groups").status_code == 200, "it answers as before"
            start("projections", old)
            new_worker.kill()
            ledger.wait_for(acknowledged=100)
            start("projections", {})
        assert_served_by_all(*queries, database=database)
        for settings in ({}, old):
            before = generations(database)
            replayed = run_cli(database, "replay", **settings)
            assert (replayed.returncode, generations(database) == before) == (0, False), replayed.stdout
            assert_served_by_all(*queries, database=database)
        before = generations(database)
        with pouring(*receivers, ledger=ledger, senders=4, name="replayed"):
            ledger.wait_for(acknowledged=60)
        assert_served_by_all(*queries, database=database)
        assert generations(database) == before
    ledger.assert_kept(history(database))
    assert_verified_by_both(database, old)


def reached(server: Server) -> int:
    """The position of the read model."""
    return int(server.get("/v1/groups", limit=1).headers.get("Projector-Position", 0))
