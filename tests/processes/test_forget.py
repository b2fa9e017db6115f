"""`projector forget`, beside a server under load: afterwards no trace of the user is left, and rosters are correct."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from projector.callbacks import translate
from projector.domain.events import Recorded
from tests import oracle
from tests.kinds import change_events, on_postgresql, url_of
from tests.processes.databases import assert_served_as_recorded, history, write
from tests.processes.traffic import EPOCH, GROUPS, SPAN_MS, Ledger, callback, pouring
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SEED = 20241121
FORGOTTEN = ("user7", "user8")
ACCOUNTS = re.compile(rb"user[78](?!\d)")


def stored(database: Path, folder: Path) -> bytes:
    """Every stored byte: on SQLite the files, with a backup; on PostgreSQL every row."""
    if not on_postgresql():
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(folder / "backup")) as backup:
            source.backup(backup)
        return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())
    tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname !~ '^pg_|^information'"
    with psycopg.connect(url_of(database)) as server:
        values = [
            value
            for (table,) in server.execute(tables).fetchall()
            for row in server.execute(f"SELECT * FROM {table}").fetchall()
            for value in row
        ]
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)


def responses(server: Server) -> bytes:
    """Every response of `/v1`, about now and the past, that could mention an account."""
    head = int(server.get("/v1/groups").headers["Projector-Position"])
    bodies = [server.get("/v1/groups", limit=1000).content]
    for group_id in GROUPS:
        path = server.group_path(group_id)
        for when in ({}, {"at": EPOCH + SPAN_MS // 2}, {"position": head // 2}):
            bodies += [server.get(path, **when).content, server.get(f"{path}/members", limit=1000, **when).content]
        bodies.append(server.get(f"{path}/diff", **{"from": EPOCH, "to": EPOCH + SPAN_MS}).content)
    after: int | None = 0
    while after is not None:
        page = server.get("/v1/events", after=after, limit=1000)
        bodies.append(page.content)
        events = page.json()["events"]
        after = events[-1]["position"] if events else None
    return b"\n".join(bodies)


def as_sent(recorded: Recorded) -> Recorded:
    """The event as if no account were forgotten."""
    body = callback(json.loads(recorded.event.callback)["Serial"], SEED)
    received = recorded.event.recorded_at
    event = translate(body["CallbackCommand"], json.dumps(body).encode(), platform=None, received_at=received).event
    return Recorded(recorded.position, event, recorded.version)


def counts(recorded: list[Recorded]) -> dict[str, Any]:
    states = oracle.everything(oracle.facts(recorded))
    return {group_id: (group["member_count"], group["is_full"]) for group_id, (group, _) in states.items()}


def test_afterwards_no_response_export_replay_or_backup_shows_a_forgotten_user_and_rosters_are_correct(
    kind: str, tmp_path: Path
) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    write(database, range(1, 601), SEED)
    assert ACCOUNTS.search(stored(database, tmp_path))
    digest = digest_of(database)
    with serving(database) as server:
        server.post(b"user7 is not JSON")
        with pouring(server, ledger=ledger, senders=3):
            ledger.wait_for(acknowledged=60)
            done = run_cli(database, "forget", *FORGOTTEN)
            assert (done.returncode, kind) == (0, kind), done.stderr
            ledger.wait_for(acknowledged=60)
        server.get("/v1/groups", wait_for=len(history(database)))
        assert ACCOUNTS.search(responses(server)) is None
        assert server.get("/v1/users/user7/groups").status_code == 404
        assert_served_as_recorded(server, database)
        assert counts(history(database)) == counts(list(map(as_sent, history(database))))
    exported = (
        run_cli(database, "events").stdout.encode() + run_cli(database, "quarantine", "show", "1").stdout.encode()
    )
    assert ACCOUNTS.search(exported) is None
    verified = run_cli(database, "verify", "--expect", digest)
    assert verified.returncode == 0, verified.stdout
    assert "of them redacted, no faults" in verified.stdout
    assert run_cli(database, "replay").returncode == 0
    assert ACCOUNTS.search(stored(database, tmp_path)) is None
    back = run_cli(database, "replay", "--rollback")
    assert (back.returncode, ACCOUNTS.search(stored(database, tmp_path))) == (0, None)


def digest_of(database: Path) -> str:
    lines = run_cli(database, "verify", "--log-only").stdout.splitlines()
    return next(line.removeprefix("digest: ") for line in lines if line.startswith("digest: "))


def test_a_user_forgotten_while_a_member_can_still_leave(tmp_path: Path) -> None:
    def body(command: str, members: str, user: str) -> dict[str, Any]:
        return {"CallbackCommand": f"Group.CallbackAfter{command}", "GroupId": "g", members: [{"Member_Account": user}]}

    database = tmp_path / "events.db"
    with serving(database) as server:
        for user in ("ann", "bob"):
            server.post(body("NewMemberJoin", "NewMemberList", user))
        done = run_cli(database, "forget", "ann")
        pseudonym = done.stdout.splitlines()[1].split()[3]
        assert {*server.members("g", wait_for=2)} == {"bob", pseudonym}
        left = server.post(body("MemberExit", "ExitMemberList", "ann"))
        members = server.members("g", wait_for=int(left.headers["Projector-Position"]))
        assert {*members} == {"bob"}
        history_of = server.get(server.group_path("g", "members", pseudonym) + "/history").json()
        assert len(history_of["history"]) == 2


def test_a_dry_run_changes_nothing_and_reports_where_they_are_mentioned(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 101), SEED)
    before = history(database)
    done = run_cli(database, "forget", "--dry-run", "user7", "unknown")
    mentions = sum('"user7"' in recorded.event.callback for recorded in before)
    assert done.stdout.startswith(f"mentioned in {mentions} events of ")
    assert history(database) == before


def test_events_that_cannot_be_decoded_are_reported(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 31), SEED)
    column = "notification_id" if on_postgresql() else "rowid"
    change_events(database, f"UPDATE stored_events SET topic = 'FromTomorrow' WHERE {column} = 9")
    done = run_cli(database, "forget", "user7")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("1 events cannot be decoded")


@pytest.mark.parametrize("arguments", [[], [""], ["--dry-run"]])
def test_forgetting_requires_at_least_one_user(tmp_path: Path, arguments: list[str]) -> None:
    done = run_cli(tmp_path / "events.db", "forget", *arguments)
    assert done.returncode == 2
