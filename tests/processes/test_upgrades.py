"""Upgrades: code of another version starts on an existing read model, and no action is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from projector.bootstrap import PROJECTIONS
from projector.projection.groups import GroupsProjection
from tests.domain.facts import EPOCH
from tests.processes.databases import assert_served_as_recorded, checkpoints, rows, write
from tests.processes.traffic import Ledger, callback, pouring
from tests.processes.waiting import until
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20240229
GROUP = "@TGS#STORY"

OLDER = """
from projector.projection.groups import GroupsProjection
GroupsProjection.version = 0
"""
WITH_A_BUG = """
from projector.domain import membership
from projector.projection.groups import GroupsProjection
GroupsProjection.version = 0
fold = membership.evolve
membership.evolve = lambda user_id, member, recorded: (
    member if getattr(recorded.event, "exit_type", None) == "Kicked" else fold(user_id, member, recorded)
)
"""
BUILD_BESIDE_THE_SERVER = """
from projector import worker
worker._MAX_FIRST_BUILD_EVENTS = -1
"""


def code(folder: Path, *changes: str) -> dict[str, str]:
    """The environment of processes that run the code with these changes."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("\n".join(changes))
    return {"PYTHONPATH": str(folder)}


def body(command: str, at: int, **fields: object) -> dict[str, object]:
    return {"CallbackCommand": f"Group.CallbackAfter{command}", "GroupId": GROUP, "EventTime": EPOCH + at, **fields}


def rebuild_reasons(server: Server) -> list[str]:
    """The logged reasons to rebuild in another process."""
    return [line["reason"] for line in server.log if line["event"] == "rebuilding the read model"]


def accounts(*users: str) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]


def test_a_bug_in_a_projection_is_gone_from_the_rosters_with_the_version_that_fixes_it(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database, **code(tmp_path / "buggy", WITH_A_BUG)) as server:
        server.post(body("CreateGroup", 0, Owner_Account="ann", MemberList=accounts("ann", "bob"), Type="Public"))
        left = server.post(body("MemberExit", 1, ExitType="Kicked", ExitMemberList=accounts("bob")))
        position = int(left.headers["Projector-Position"])
        assert [*server.members(GROUP, wait_for=position)] == ["ann", "bob"], "the bug: a removed member is still there"
        assert server.stop() == 0

    with serving(database) as server:
        assert [*server.members(GROUP)] == ["ann"]
        assert server.group(GROUP)["member_count"] == 1
    assert run_cli(database, "replay", "--check").returncode == 0


def test_the_old_read_model_is_served_while_another_process_builds_the_new_one_and_callbacks_go_on(
    tmp_path: Path,
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 2_001), SEED)
    assert run_cli(database, "replay", **code(tmp_path / "older", OLDER)).returncode == 0
    ledger = Ledger(SEED, sent={*range(1, 2_001)})
    with serving(database, **code(tmp_path / "newer", BUILD_BESIDE_THE_SERVER)) as server:
        position = 2_000
        with pouring(server, ledger=ledger, senders=2):
            ledger.wait_for(acknowledged=200)
            while rebuild_reasons(server) == [] or position == 2_000:
                response = server.get("/v1/groups", limit=1).raise_for_status()
                before, position = position, int(response.headers["Projector-Position"])
                assert before <= position
            ledger.wait_for(acknowledged=200)
        assert_served_as_recorded(server, database)
        assert rebuild_reasons(server) == [f"the rows of groups are of version 0, not {GroupsProjection.version}"]
    assert run_cli(database, "replay", "--check").returncode == 0


def test_without_a_read_model_the_response_is_503_and_not_404(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 101), SEED)
    with serving(database, "--only", "queries") as server:
        response = server.get("/v1/groups")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert "there is no read model yet" in response.json()["detail"]
        ready = server.get("/readyz")
        assert (ready.status_code, ready.json()["positions"]["groups"]) == (503, 0)
        assert run_cli(database, "status").returncode == 1
        with serving(database, "--only", "projections"):
            until(lambda: server.get("/readyz").status_code == 200, of=server)
        assert_served_as_recorded(server, database)


def test_while_servers_of_two_versions_run_neither_corrupts_the_rows_nor_rebuilds_without_end(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 101), SEED)
    with serving(database, **code(tmp_path / "older", OLDER)) as older:
        with serving(database) as newer:
            position = int(older.post(callback(101, SEED)).headers["Projector-Position"])
            for server in (newer, older):
                until(lambda server=server: server.get("/v1/groups", wait_for=position).status_code == 200, of=server)
            assert_served_as_recorded(newer, database)
            assert_served_as_recorded(older, database)
        assert older.stop() == 0
        assert [*rebuild_reasons(older), *rebuild_reasons(newer)] == []
    assert checkpoints(database) == dict.fromkeys(checkpoints(database), 101)
    assert {name: version for name, version, _ in rows(database)["checkpoints"]} == {
        projection.name: projection.version for projection in PROJECTIONS
    }
