"""Upgrades: code of another version starts on a read model, and nobody has to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
from projector.projection.profile import ProfileProjection
ProfileProjection.version = 0
"""
WITH_A_BUG = """
from projector.domain import membership
from projector.projection.membership import MembershipProjection
MembershipProjection.version = 0
fold = membership.evolve
membership.evolve = lambda member, recorded: (
    member if getattr(recorded.event, "exit_type", None) == "Kicked" else fold(member, recorded)
)
"""
BY_ANOTHER_PROCESS = """
from projector import bootstrap
bootstrap._BUILT_AT_ONCE = -1
"""


def code(folder: Path, *changes: str) -> dict[str, str]:
    """The environment in which every process runs the code with these changes to it."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text("\n".join(changes))
    return {"PYTHONPATH": str(folder)}


def body(command: str, at: int, **fields: object) -> dict[str, object]:
    return {"CallbackCommand": f"Group.CallbackAfter{command}", "GroupId": GROUP, "EventTime": EPOCH + at, **fields}


def built_again(server: Server) -> list[str]:
    """The reasons logged for building in another process."""
    return [line["reason"] for line in server.log if line["event"] == "rebuilding the read model"]


def accounts(*users: str) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]


def test_a_bug_in_a_projection_is_gone_from_the_rosters_with_the_version_that_mends_it(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database, **code(tmp_path / "buggy", WITH_A_BUG)) as server:
        server.post(body("CreateGroup", 0, Owner_Account="ann", MemberList=accounts("ann", "bob"), Type="Public"))
        told = server.post(body("MemberExit", 1, ExitType="Kicked", ExitMemberList=accounts("bob")))
        position = int(told.headers["Projector-Position"])
        assert [*server.members(GROUP, wait_for=position)] == ["ann", "bob"], "the bug: who was removed is still there"
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
    with serving(database, **code(tmp_path / "newer", BY_ANOTHER_PROCESS)) as server:
        position = 2_000
        with pouring(server, ledger=ledger, senders=2):
            ledger.wait_for(answers=200)
            while built_again(server) == [] or position == 2_000:
                answer = server.get("/v1/groups", limit=1).raise_for_status()
                before, position = position, int(answer.headers["Projector-Position"])
                assert before <= position
            ledger.wait_for(answers=200)
        assert_served_as_recorded(server, database)
        assert built_again(server) == ["the rows of profile are of version 0, not 1"]
    assert run_cli(database, "replay", "--check").returncode == 0


def test_where_there_is_no_read_model_the_answer_is_to_wait_and_not_that_there_is_no_such_group(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 101), SEED)
    with serving(database, "--only", "queries") as server:
        answer = server.get("/v1/groups")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "there is no read model yet" in answer.json()["detail"]
        ready = server.get("/readyz")
        assert (ready.status_code, ready.json()["positions"]["membership"]) == (503, 0)
        assert run_cli(database, "status").returncode == 1
        with serving(database, "--only", "projections"):
            until(lambda: server.get("/readyz").status_code == 200, of=server)
        assert_served_as_recorded(server, database)


def test_while_servers_of_two_versions_run_neither_spoils_the_rows_nor_builds_without_end(tmp_path: Path) -> None:
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
        assert [*built_again(older), *built_again(newer)] == []
    assert checkpoints(database) == dict.fromkeys(checkpoints(database), 101)
    assert {version for _, version, _ in rows(database)["checkpoints"]} == {1}
