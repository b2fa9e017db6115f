"""`projector forget`, beside a server under load: afterwards no trace of the user is left, and rosters are correct."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

from projector import cli, forgetting
from projector.bootstrap import open_stores
from projector.callbacks import translate
from projector.domain.events import Recorded
from projector.event_store import Candidate
from projector.event_store.quarantine import UnreadableRequest
from projector.event_store.spool import Spool
from tests import oracle
from tests.kinds import change_events, on_postgresql, settings, url_of
from tests.processes.databases import assert_served_as_recorded, history, write
from tests.processes.traffic import EPOCH, GROUPS, SPAN_MS, Ledger, callback, candidates, pouring
from tests.processes.waiting import until
from tests.running import environment, run_cli, serving, start_cli

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

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
            done = run_cli(database, "forget", "--yes", *FORGOTTEN)
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
        done = run_cli(database, "forget", "--yes", "ann")
        pseudonym = done.stdout.splitlines()[0].split()[3]
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
    done = run_cli(database, "forget", "--yes", "user7")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("1 events or callbacks cannot be decoded")


@pytest.mark.parametrize("arguments", [[], [""], ["--dry-run"], ["--list", "ann"], ["--lift", "ann", "bob"]])
def test_forgetting_requires_at_least_one_user(tmp_path: Path, arguments: list[str]) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 2), SEED)
    done = run_cli(database, "forget", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: projector forget"), "it is the arguments that are refused"


def test_without_a_terminal_it_forgets_nobody_unless_told_so(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 31), SEED)
    before = history(database)
    done = run_cli(database, "forget", "user7")
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert history(database) == before
    assert run_cli(database, "forget", "--list").stdout == ""


def test_an_id_that_no_event_mentions_is_refused_unless_it_is_said_to_be_unseen(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 31), SEED)
    refused = run_cli(database, "forget", "--yes", "nobody-here")
    assert (refused.returncode, "no event mentions nobody-here" in refused.stderr) == (1, True)
    assert run_cli(database, "forget", "--list").stdout == ""
    assert run_cli(database, "forget", "--yes", "--unseen", "nobody-here").returncode == 0
    (pseudonym,) = run_cli(database, "forget", "--list").stdout.splitlines()
    with serving(database) as server:
        left = server.post(joined("g", "nobody-here"))
        assert {*server.members("g", wait_for=int(left.headers["Projector-Position"]))} == {pseudonym}


def test_a_lifted_account_is_recorded_under_its_id_again_and_refused_while_its_pseudonym_is_a_member(
    tmp_path: Path,
) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:

        def roster(response: httpx2.Response) -> set[str]:
            return {*server.members("g", wait_for=int(response.headers["Projector-Position"]))}

        server.post(joined("g", "ann"))
        pseudonym = run_cli(database, "forget", "--yes", "ann").stdout.split()[3]
        refused = run_cli(database, "forget", "--lift", "ann")
        assert (refused.returncode, f"{pseudonym} is still a member of group g" in refused.stderr) == (1, True)
        exited = {"CallbackCommand": "Group.CallbackAfterMemberExit", "GroupId": "g"}
        assert roster(server.post(exited | {"ExitMemberList": [{"Member_Account": "ann"}]})) == set()
        assert run_cli(database, "forget", "--lift", "ann").returncode == 0
        assert run_cli(database, "forget", "--list").stdout == f"{pseudonym}  lifted\n"
        assert roster(server.post(joined("g", "ann"))) == {"ann"}
        assert {member for recorded in history(database)[:2] for member in recorded.event.members} == {pseudonym}
        assert run_cli(database, "forget", "--lift", "ann").returncode == 1, "nobody is forgotten any more"
        again = run_cli(database, "forget", "--yes", "ann").stdout.split()[3]
        assert again != pseudonym
        assert {*server.members("g", wait_for=3)} == {again}


def joined(group_id: str, user: str) -> dict[str, Any]:
    return {
        "CallbackCommand": "Group.CallbackAfterNewMemberJoin",
        "GroupId": group_id,
        "NewMemberList": [{"Member_Account": user}],
    }


def test_while_it_runs_every_roster_of_every_moment_is_right_and_names_the_user_once(tmp_path: Path) -> None:
    database, ledger, seen = tmp_path / "events.db", Ledger(SEED), list[Seen]()
    write(database, range(1, 2_001), SEED)
    with serving(database) as server, pouring(server, ledger=ledger, senders=2):
        ledger.wait_for(acknowledged=20)
        server.get("/v1/groups", wait_for=2_000)
        forgetting = start_cli(database, "forget", "--yes", *FORGOTTEN)
        while forgetting.poll() is None:
            seen += [see(server, group_id, when) for group_id in GROUPS for when in ("", "position", "at")]
        assert forgetting.wait() == 0
    recorded = list(map(as_sent, history(database)))
    pseudonyms = dict(zip(run_cli(database, "forget", "--list").stdout.split(), FORGOTTEN, strict=True))
    expected = {position: rosters(recorded[:position]) for position in {look.position for look in seen}}
    for look in seen:
        users = [pseudonyms.get(user, user) for user in look.users]
        assert sorted(users) == sorted(expected[look.position][look.group_id]), look
    assert {name for look in seen for name in look.users if name in pseudonyms}, "some answers came after the swap"
    assert {name for look in seen for name in look.users if name in FORGOTTEN}, "and some before"


class Seen(NamedTuple):
    """The members of a group in a response, and the position as of which they are."""

    group_id: str
    position: int
    users: list[str]


def see(server: Server, group_id: str, when: str) -> Seen:
    """Ask for a roster: the present one or, of the same position, the one that time travel finds."""
    path = server.group_path(group_id, "members")
    now = server.get(path, limit=1000).raise_for_status()
    position = int(now.headers["Projector-Position"])
    if when:
        parameters = {"position": position} if when == "position" else {"at": 4_000_000_000_000}
        now = server.get(path, limit=1000, **parameters).raise_for_status()
        position = position if when == "position" else int(now.headers["Projector-Position"])
    return Seen(group_id, position, [member["user_id"] for member in now.json()["members"]])


def rosters(recorded: list[Recorded]) -> dict[str, set[str]]:
    return {group_id: {*members} for group_id, (_, members) in oracle.everything(oracle.facts(recorded)).items()}


def test_what_was_cut_short_is_shown_and_the_next_start_finishes_it(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 301), SEED)
    assert run_cli(database, "replay").returncode == 0
    with closing(open_stores(settings(database)).events) as events:
        events.forgotten.begin("user7")
    status, verified = run_cli(database, "status"), run_cli(database, "verify", "--log-only")
    assert "forgetting    1 user" in status.stdout
    assert (verified.returncode, verified.stdout.splitlines()[-1]) == (
        0,
        "forgetting: 1 user, in progress or interrupted",
    )
    assert ", no faults\n" in verified.stdout
    assert run_cli(database, "forget", "--list").stdout.endswith("  unfinished\n")
    with serving(database, "--only", "queries") as server:
        assert server.get("/readyz").json()["unfinished_forgettings"] == 1
    with serving(database) as server:
        until(lambda: "unfinished_forgettings" not in server.get("/readyz").json(), of=server)
        assert server.get("/v1/users/user7/groups").status_code == 404
    assert re.search(rb"user7(?!\d)", stored(database, tmp_path)) is None


def test_ids_that_an_earlier_version_left_in_later_events_are_redacted_at_the_first_start(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 301), SEED)
    pseudonym = run_cli(database, "forget", "--yes", "user7").stdout.split()[3]
    change_events(database, "DELETE FROM forgettings")  # version 0.1.0 had no such table
    assert run_cli(database, "replay").returncode == 0
    leaked = next(recorded for recorded in history(database) if pseudonym in recorded.event.callback)
    leak(database, leaked.position, pseudonym, "user7")
    assert "user7" in history(database)[leaked.position - 1].event.callback
    with serving(database) as server:
        until(lambda: "unfinished_forgettings" not in server.get("/readyz").json(), of=server)
        assert server.get("/v1/users/user7/groups").status_code == 404
    assert re.search(rb"user7(?!\d)", stored(database, tmp_path)) is None
    assert run_cli(database, "verify").returncode == 0


def leak(database: Path, position: int, pseudonym: str, user: str) -> None:
    """Put a user's id back into an event."""
    if on_postgresql():
        text = f"convert_to(replace(convert_from(state, 'UTF8'), '{pseudonym}', '{user}'), 'UTF8')"
        change_events(database, f"UPDATE stored_events SET state = {text} WHERE notification_id = {position}")
    else:
        text = f"CAST(replace(CAST(state AS TEXT), '{pseudonym}', '{user}') AS BLOB)"
        change_events(database, f"UPDATE stored_events SET state = {text} WHERE rowid = {position}")


def test_a_quarantine_of_large_bodies_is_redacted_while_every_callback_is_acknowledged(tmp_path: Path) -> None:
    database, ledger = tmp_path / "events.db", Ledger(SEED)
    write(database, range(1, 31), SEED)
    with closing(open_stores(settings(database)).events):
        quarantine = open_stores(settings(database)).quarantine
        for number in range(60):
            body = b"user7 " + b"%d" % number + b"x" * 1_000_000
            quarantine.keep(UnreadableRequest(body, "not JSON", None, None, EPOCH))
    with serving(database) as server, pouring(server, ledger=ledger, senders=2):
        ledger.wait_for(acknowledged=20)
        done = run_cli(database, "forget", "--yes", "user7")
        assert (done.returncode, "60 callbacks in the quarantine" in done.stdout) == (0, True), done.stderr
    assert ledger.refused == []


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_reader_that_keeps_old_bytes_in_the_log_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 31), SEED)
    monkeypatch.setattr(forgetting, "_TIMEOUT_S", 0)
    for name, value in environment(database).items():
        monkeypatch.setenv(name, value)
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM stored_events").fetchone()
        assert cli.main(["forget", "--yes", "user7"]) == 2
    assert "its log file may still contain the ids" in capsys.readouterr().err
    assert cli.main(["forget"]) == 0
    assert re.search(rb"user7(?!\d)", stored(database, tmp_path)) is None


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_write_that_another_process_blocks_is_tried_again_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "events.db"
    write(database, range(1, 31), SEED)
    with (
        closing(open_stores(settings(database)).events) as events,
        closing(sqlite3.connect(database, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(forgetting.time, "sleep", lambda _: other.rollback())
        assert forgetting.begin(events, "user7").startswith("forgotten-")


def test_callbacks_that_wait_in_the_spool_are_redacted_there(tmp_path: Path) -> None:
    database, path = tmp_path / "events.db", tmp_path / "spool"
    write(database, range(1, 31), SEED)
    with (
        closing(open_stores(settings(database)).events) as events,
        closing(Spool(str(path), events.mapper, 999)) as spool,
    ):
        spool.keep([Candidate(event, b"%d" % at) for at, (event, _) in enumerate(candidates(range(31, 301), SEED))])
        spool.keep_unreadable(UnreadableRequest(b"user7 is not JSON", "not JSON", None, None, EPOCH))
    done = run_cli(database, "forget", "--yes", "user7", PROJECTOR_SPOOL_PATH=str(path))
    assert (done.returncode, " 0 in the spool" in done.stdout) == (0, False), done.stderr
    assert re.search(rb"user7(?!\d)", b"".join(file.read_bytes() for file in tmp_path.glob("spool*"))) is None
