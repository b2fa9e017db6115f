"""A server that reconciles by itself, and what it shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from projector.simulator.vendor.groups import VendorGroups
from tests.processes.waiting import until
from tests.running import run_cli, serving
from tests.vendor import imported, vendor

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]

GROUP = "@TGS#1"


def test_a_server_reconciles_by_itself_and_shows_what_it_found(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    groups = VendorGroups()
    groups.add(GROUP, imported("ann", "bob", limit=200))
    with vendor(groups) as fake, serving(database, **fake.settings(PROJECTOR_RECONCILE_EVERY_S="1")) as server:
        server.logged(0, event="reconciled", run=2)
        until(lambda: server.group(GROUP)["verified_at"], of=server)
        group = server.group(GROUP)
        assert (group["member_count"], group["member_limit"], group["roster_complete"]) == (2, 200, True)
        newest = server.get("/v1/reconciliation").json()
        assert newest["run"] >= 2
        assert server.get("/v1/status").json()["reconciliation"]["run"] >= newest["run"]
        metrics = server.get("/metrics").text
        assert 'projector_drift_total{kind="unknown_group"} 1.0' in metrics
        assert 'projector_corrections_total{kind="unknown_group"} 1.0' in metrics
        assert 'projector_rest_requests_total{code="0",command="get_group_info"}' in metrics
        assert "projector_reconciled_seconds" in metrics
        history = server.get(server.group_path(GROUP, "members", "bob", "history")).json()["history"]
        assert [(event["change"], event["source"]) for event in history] == [("observed_member", "reconcile")]
        groups.remove(GROUP)
        groups.add("@TGS#2", imported("cyd"))
        server.logged(len(server.log), event="reconciled")
        server.logged(len(server.log), event="reconciled")
        until(lambda: server.group(GROUP)["status"] == "dismissed", of=server)
        history = server.get(server.group_path(GROUP, "members", "bob", "history")).json()["history"]
        assert [event["change"] for event in history] == ["observed_dismissed", "observed_member"]


def test_two_failed_runs_make_a_server_unready_and_the_next_success_ready_again(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    groups = VendorGroups()
    groups.add(GROUP, imported("ann"))
    with vendor(groups) as fake, serving(database) as server:
        assert server.get("/v1/reconciliation").status_code == 404
        for _ in range(2):
            assert server.get("/readyz").status_code == 200
            assert run_cli(database, "reconcile", **fake.settings(PROJECTOR_REST_KEY="wrong")).returncode == 2
        (complaint,) = server.get("/readyz").json()["complaints"]
        assert complaint.startswith(
            "reconciling with the REST API failed 2 times: get_appid_group_list was answered 70009"
        )
        assert run_cli(database, "reconcile", **fake.settings()).returncode == 0
        assert server.get("/readyz").status_code == 200
