"""The status of servers that run, have stopped, or are asked over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from projector.read_model.worker_lock import WorkerLock
from tests.processes.waiting import until
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

FULL = {"CallbackCommand": "Group.CallbackAfterGroupFull", "GroupId": "g"}
READER = {"PROJECTOR_READ_TOKENS": "board:secret"}


def status(database: Path, *arguments: str, **settings: str) -> dict[str, Any]:
    done = run_cli(database, "status", "--json", *arguments, **settings)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_it_tells_whether_a_worker_projects_and_when_the_last_callback_came(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database, "--only", "callbacks") as receiver:
        assert (status(database)["last_callback_at"], status(database)["has_worker"]) == (None, False)
        receiver.post(FULL)
        with serving(database, "--only", "projections"), serving(database, "--only", "projections") as second:
            until(lambda: status(database)["has_worker"], of=second)
            second.kill()
            assert status(database)["has_worker"]
        stopped = status(database)
    assert not stopped["has_worker"]
    event = json.loads(run_cli(database, "events").stdout)
    assert stopped["last_callback_at"] == event["recorded_at"]


def test_a_worker_that_is_killed_no_longer_projects(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        until(lambda: status(tmp_path / "events.db")["has_worker"], of=server)
        server.kill()
        until(lambda: not status(tmp_path / "events.db")["has_worker"], of=server)


def test_every_server_tells_the_same_over_http_to_those_with_a_token(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database, **READER) as server:
        server.post(FULL)
        until(lambda: told(server)["projections"]["groups"]["position"] == 1, of=server)
        until(lambda: told(server)["has_worker"], of=server)
        assert told(server) == status(database)
        assert status(tmp_path / "none.db", "--url", f"{server.url}/", **READER) == status(database)
        as_text = run_cli(tmp_path / "none.db", "status", "--url", server.url, **READER).stdout
        assert "worker        projecting\n" in as_text
        refused = run_cli(tmp_path / "none.db", "status", "--url", server.url)
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
        assert "PROJECTOR_READ_TOKENS" in refused.stderr
    assert not (tmp_path / "none.db").exists()


def test_a_receiver_tells_it_before_there_is_a_read_model(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", "--only", "callbacks", **READER) as server:
        server.post(FULL)
        done = run_cli(tmp_path / "events.db", "status", "--url", server.url, **READER)
    assert done.returncode == 1
    assert "events        1\n" in done.stdout
    assert "projections are halted: there is no read model yet" in done.stdout


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "nonsense", "http://[::1"])
def test_an_address_without_a_server_is_one_line(tmp_path: Path, address: str) -> None:
    done = run_cli(tmp_path / "events.db", "status", "--url", address)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert f"projector: {address} does not tell its status: " in done.stderr


def test_a_worker_whose_lock_file_was_deleted_locks_it_again(tmp_path: Path) -> None:
    ours, other = WorkerLock(str(tmp_path / "model")), WorkerLock(str(tmp_path / "model"))
    assert not other.is_held()
    ours.hold()
    assert other.is_held()
    (tmp_path / "model.worker").unlink()
    assert not other.is_held()
    ours.hold()
    assert other.is_held()
    ours.release()
    assert not other.is_held()


def told(server: Server) -> dict[str, Any]:
    response = server.client.get(f"{server.url}/v1/status", headers={"Authorization": "Bearer secret"})
    assert response.headers["Projector-Position"].isdigit()
    return response.raise_for_status().json()
