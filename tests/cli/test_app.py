"""Servers of one app, started with the database or the spool of another."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.processes.databases import history, write
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

OTHER = {"PROJECTOR_SDK_APP_ID": "1400000001"}
MISMATCH = "belongs to SDKAppID 1400000000, but PROJECTOR_SDK_APP_ID is 1400000001; correct it, or set PROJECTOR_"


@pytest.mark.parametrize("roles", ["", "--only callbacks", "--only projections", "--only queries"])
def test_serve_refuses_the_database_of_another_app_in_one_line(tmp_path: Path, roles: str) -> None:
    database = tmp_path / "events.db"
    with serving(database):
        pass
    done = run_cli(database, "serve", "--port", "0", *roles.split(), **OTHER)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"projector: the database {MISMATCH}DATABASE_URL" in done.stderr
    with serving(database, *roles.split()):
        pass


def test_serve_refuses_the_spool_of_another_app_in_one_line(tmp_path: Path) -> None:
    spool = {"PROJECTOR_SPOOL_PATH": str(tmp_path / "the.spool")}
    with serving(tmp_path / "events.db", **spool):
        pass
    done = run_cli(tmp_path / "other.db", "serve", "--port", "0", **spool, **OTHER)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"projector: the spool {tmp_path}/the.spool {MISMATCH}SPOOL_PATH" in done.stderr


def test_a_store_without_a_record_is_recorded_by_the_first_start_with_an_app(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 11), 1)
    with ExitStack() as running:
        for role in ("queries", "callbacks"):
            app = "" if role == "queries" else "1400000001"
            running.enter_context(serving(database, "--only", role, PROJECTOR_SDK_APP_ID=app))
    assert run_cli(database, "serve", "--port", "0").returncode == 2
    assert len(history(database)) == 10
