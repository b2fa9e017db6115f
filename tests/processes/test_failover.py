"""Failover to a standby that inherited all settings of its primary, by the steps of docs/operations.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kinds import point
from tests.postgresql import running
from tests.processes.databases import assert_served_as_recorded, history, spooled
from tests.processes.traffic import Ledger, pouring
from tests.processes.waiting import until
from tests.running import serving

if TYPE_CHECKING:
    from tests.postgresql import PostgreSQL

pytestmark = [
    pytest.mark.slow,  # every test here starts processes
    pytest.mark.usefixtures("kind"),
    pytest.mark.parametrize("kind", ["postgresql"], indirect=True),
]

SEED = 20261122
OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
(SQL,) = re.findall(r"```sql\n(.*?)```", OPERATIONS, re.DOTALL)
*STOP_WAITING, PROMOTE = map(str.strip, SQL.strip().splitlines())
WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def execute(server: PostgreSQL, *statements: str) -> None:
    for statement in statements:
        server.execute(statement)


@pytest.mark.parametrize("steps", [[*STOP_WAITING, PROMOTE], [PROMOTE]], ids=["as documented", "promoted only"])
def test_a_promoted_standby_that_inherited_synchronous_commits_goes_on_once_it_waits_for_nobody(
    tmp_path: Path, steps: list[str]
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    with running() as primary:
        primary.database("failing_over")
        execute(primary, "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
        with running(primary=primary) as standby:
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            point(database, f"postgresql://postgres@{hosts}/failing_over?target_session_attrs=read-write")
            with serving(database, "--only", "callbacks") as receiver, serving(database, "--only", "projections"):
                until(lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)], of=receiver)
                with pouring(receiver, ledger=ledger, senders=2):
                    ledger.wait_for(acknowledged=50)
                    primary.stop(immediately=True)
                    ledger.wait_for(acknowledged=50)
                    execute(standby, *steps)
                    if steps == [PROMOTE]:
                        until(lambda: standby.execute(WAITING), of=receiver)
                        ledger.wait_for(acknowledged=50)
                        assert spooled(database) > 0
                        execute(standby, *STOP_WAITING)
                    ledger.wait_for(acknowledged=50)
                until(lambda: spooled(database) == 0, of=receiver)
                assert ledger.refused == []
                ledger.assert_kept(history(database))
            with serving(database) as server:
                assert_served_as_recorded(server, database)
