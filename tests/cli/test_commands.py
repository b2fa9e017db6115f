"""The commands as people and scripts run them: their output on stdout and stderr, and their exit status."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from projector import __version__
from projector.bootstrap import open_stores
from projector.event_store.quarantine import UnreadableRequest
from projector.settings import Settings
from tests.running import environment, run_cli, serving

pytestmark = pytest.mark.slow  # every test here starts processes

KEY, ANOTHER_KEY = "MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA=="
TOO_LARGE = str(2**63)
"""Larger than any position or id, and than the integers of SQLite."""


def callback(command: str, group_id: str, event_time: int, **more: Any) -> dict[str, Any]:
    return {"CallbackCommand": f"Group.Callback{command}", "GroupId": group_id, "EventTime": event_time, **more}


def join(user: str, group_id: str, event_time: int) -> dict[str, Any]:
    return callback("AfterNewMemberJoin", group_id, event_time, NewMemberList=[{"Member_Account": user}])


CALLBACKS = [
    callback("AfterCreateGroup", "@TGS#1/a", 1670574414001, Owner_Account="ann", Name="Team", Type="Public"),
    join("bob", "@TGS#1/a", 1670574414002),
    join("cyd", "g2", 1670574414003),
    callback("AfterGroupFull", "@TGS#1/a", 1670574414004),
    callback("AfterGroupDestroyed", "g2", 1670574414005),
    join("dan", "@TGS#1/a", 1670574414006),
]
UNREADABLE = [b"not JSON \xff", json.dumps({"CallbackCommand": "Group.CallbackAfterGroupFull"}).encode()]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six events about two groups, projected, and two requests in the quarantine. Tests only read it."""
    path = tmp_path_factory.mktemp("cli") / "events.db"
    with serving(path) as server:
        for body in CALLBACKS:
            assert server.post(body).status_code == 200
        for content in UNREADABLE:
            assert server.post(content, command="Group.CallbackAfterGroupFull").status_code == 400
        assert server.stop() == 0
    return path


@pytest.fixture(scope="module")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More events than a pipe holds."""
    path = tmp_path_factory.mktemp("long") / "events.db"
    quarantine(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO stored_events VALUES ('g', ?, 'GroupFilled', ?)",
            [
                (number, json.dumps({"group_id": "g", "occurred_at": 1, "recorded_at": 1}))
                for number in range(1, 10_001)
            ],
        )
    return path


def quarantine(database: Path, body: bytes | None = None, *, command: str | None = None) -> None:
    """Open a database, new or not, and put a request into its quarantine."""
    stores = open_stores(Settings(database_path=str(database)))
    if body is not None:
        stores.quarantine.keep(UnreadableRequest(body, "too new", command, "iOS", 1670574414123))
    stores.events.close()


def assert_fails_with_one_line(done: subprocess.CompletedProcess[str], *mentioned: str) -> None:
    """The command could not run; one line on stderr gives the reason."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("projector: ")
    assert [name for name in mentioned if name not in done.stderr] == []


def test_status_shows_positions_and_counts_to_people_and_to_programs_alike(database: Path) -> None:
    as_json, as_text = run_cli(database, "status", "--json"), run_cli(database, "status")
    assert (as_json.returncode, as_text.returncode) == (0, 0)
    assert (as_json.stderr, as_text.stderr) == ("", "")
    current = {"position": 6, "lag_events": 0, "set_aside": 0}
    last = json.loads(run_cli(database, "events", "--after", "5").stdout)["recorded_at"]
    assert json.loads(as_json.stdout) == {
        "head": 6,
        "last_callback_at": last,
        "has_worker": False,
        "projections": {"groups": current},
        "lag_seconds": 0,
        "counts": {"groups": 2, "active_groups": 1, "full_groups": 1, "members": 3},
        "quarantine": 2,
        "spool": {"events": 0, "seconds": 0},
        "set_aside": [],
        "replay": None,
        "unfinished_forgettings": 0,
        "reconciliation": None,
        "complaints": [],
    }
    assert as_text.stdout.splitlines() == [
        "events        6",
        f"last callback {last}",
        "worker        none; new events are not projected",
        "groups        at 6, 0 behind, 0 set aside",
        "lag           0.0 s",
        "groups        2",
        "active groups 1",
        "full groups   1",
        "members       3",
        "quarantine    2",
    ]


def test_status_names_every_projection_and_its_lag_before_anything_is_projected(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", "--only", "callbacks") as server:
        for body in CALLBACKS:
            server.post(body)
    status = json.loads(run_cli(tmp_path / "events.db", "status", "--json").stdout)
    empty = {"position": 0, "lag_events": 6, "set_aside": 0}
    assert status["head"] == 6
    assert status["projections"] == {"groups": empty}


def test_events_prints_the_history_a_json_object_per_line_with_each_callback_as_received(database: Path) -> None:
    done = run_cli(database, "events")
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["position"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["callback"] for event in events] == CALLBACKS
    assert [event["group_id"] for event in events] == [body["GroupId"] for body in CALLBACKS]
    assert {key: events[1][key] for key in ("type", "occurred_at", "operator", "platform")} == {
        "type": "MembersJoined",
        "occurred_at": "2022-12-09T08:26:54.002Z",
        "operator": None,
        "platform": "RESTAPI",
    }


@pytest.mark.parametrize(
    ("arguments", "positions"),
    [
        (["--after", "4"], [5, 6]),
        (["--after", "0"], [1, 2, 3, 4, 5, 6]),
        (["--after", "6"], []),
        (["--after", "7000"], []),
        (["--group", "@TGS#1/a"], [1, 2, 4, 6]),
        (["--group", "g2"], [3, 5]),
        (["--group", "g2", "--after", "3"], [5]),
        (["--group", "g2", "--after", "5"], []),
    ],
    ids=str,
)
def test_events_are_chosen_by_position_and_by_group(database: Path, arguments: list[str], positions: list[int]) -> None:
    done = run_cli(database, "events", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["position"] for line in done.stdout.splitlines()] == positions


@pytest.mark.parametrize("command", ["events --group nosuch", "replay --group nosuch", "quarantine drop 999"])
def test_a_group_or_a_callback_that_does_not_exist_is_reported_and_is_no_success(database: Path, command: str) -> None:
    done = run_cli(database, *command.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"projector: no (events for group nosuch|callback 999 .*)\n", done.stderr)


@pytest.mark.parametrize(
    "options",
    [
        "--rollback --check",
        "--rollback --projection profile",
        "--if-needed --check",
        "--if-needed --projection profile",
    ],
)
def test_options_of_a_replay_that_contradict_each_other_are_refused(database: Path, options: str) -> None:
    done = run_cli(database, "replay", *options.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be combined" in done.stderr.splitlines()[-1]


def test_without_a_read_model_a_check_says_that_there_was_nothing_to_compare(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    quarantine(path)
    for command in ("replay --check", "verify"):
        done = run_cli(path, *command.split())
        assert (done.returncode, "nothing to compare with" in done.stdout) == (2, True), command
    assert run_cli(path, "verify", "--log-only").returncode == 0


def test_the_digest_of_an_empty_history_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    quarantine(path)
    digest = run_cli(path, "verify", "--log-only").stdout.splitlines()[-1].removeprefix("digest: ")
    assert run_cli(path, "verify", "--log-only", "--expect", digest).returncode == 0


def test_the_quarantine_is_listed_and_shown_with_each_body_as_received(database: Path) -> None:
    listed = run_cli(database, "quarantine", "list")
    assert listed.returncode == 0
    first, second = listed.stdout.splitlines()
    assert first.startswith("1  ")
    assert "  1x  Group.CallbackAfterGroupFull  not JSON: " in first
    assert second.startswith("2  ")
    assert "GroupId" in second
    shown = run_cli(database, "quarantine", "show", "2")
    assert (shown.returncode, shown.stdout) == (0, f"{second}\n{UNREADABLE[1].decode()}\n")
    as_bytes = subprocess.run(
        [sys.executable, "-m", "projector", "quarantine", "show", "1"], env=environment(database), capture_output=True
    )
    assert as_bytes.stdout == first.encode() + b"\n" + UNREADABLE[0] + b"\n"


def test_callbacks_that_are_still_unreadable_stay_in_the_quarantine(database: Path) -> None:
    result = run_cli(database, "quarantine", "retry")
    assert result.returncode == 1
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        "1  still unreadable",
        "2  still unreadable",
    ]
    assert run_cli(database, "quarantine", "list").stdout.count("\n") == 2


def test_a_callback_that_has_become_readable_is_released_once_and_its_position_kept(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    for body in (CALLBACKS[2], CALLBACKS[0]):
        quarantine(database, json.dumps(body).encode(), command=body["CallbackCommand"])
    only_one = run_cli(database, "quarantine", "retry", "2")
    assert (only_one.returncode, only_one.stdout) == (0, "2  is now the event at position 1\n")
    rest = run_cli(database, "quarantine", "retry")
    assert (rest.returncode, rest.stdout) == (0, "1  is now the event at position 2\n")
    assert run_cli(database, "quarantine", "list").stdout == ""
    shown = run_cli(database, "quarantine", "show", "2")
    assert shown.returncode == 0
    assert "released as the event at position 1\n" in shown.stdout
    again = run_cli(database, "quarantine", "retry", "2")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "projector: callback 2 is not waiting in the quarantine\n"
    assert run_cli(database, "quarantine", "retry").stdout == ""
    events = [json.loads(line) for line in run_cli(database, "events").stdout.splitlines()]
    assert [event["callback"] for event in events] == [CALLBACKS[0], CALLBACKS[2]]
    assert [event["recorded_at"] for event in events] == ["2022-12-09T08:26:54.123Z"] * 2


@pytest.mark.parametrize("action", ["show", "retry"])
def test_an_id_that_is_not_in_the_quarantine_is_reported_in_one_line(database: Path, action: str) -> None:
    done = run_cli(database, "quarantine", action, "77")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("projector: ")
    assert "77" in done.stderr


def test_the_version_and_the_help_need_no_database_and_no_settings(tmp_path: Path) -> None:
    nothing = {"PROJECTOR_SDK_APP_ID": "", "PROJECTOR_DATABASE_URL": "nonsense"}
    version = run_cli(tmp_path / "none.db", "--version", **nothing)
    assert (version.returncode, version.stdout, version.stderr) == (0, f"projector {__version__}\n", "")
    usage = run_cli(tmp_path / "none.db", "--help", **nothing)
    assert (usage.returncode, usage.stderr) == (0, "")
    for command in ("serve", "replay", "status", "quarantine", "simulate", "events"):
        assert command in re.findall(r"^    (\w+)", usage.stdout, re.MULTILINE)
        command_usage = run_cli(tmp_path / "none.db", command, "--help", **nothing)
        assert (command_usage.returncode, command_usage.stderr) == (0, "")
        assert command_usage.stdout.startswith(f"usage: projector {command} ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["status", "--nonsense"],
        ["events", "--after", "soon"],
        ["events", "--after", TOO_LARGE],
        ["quarantine"],
        ["quarantine", "forget"],
        ["quarantine", "show"],
        ["quarantine", "show", "first"],
        ["quarantine", "show", TOO_LARGE],
        ["quarantine", "retry", "0"],
        ["quarantine", "retry", "-1"],
        ["quarantine", "retry", TOO_LARGE],
        ["serve", "--only", "nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_refused_with_the_usage(database: Path, arguments: list[str]) -> None:
    done = run_cli(database, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: projector")
    assert "error: " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["events"], ["replay"], ["replay", "--check"], ["quarantine", "list"], ["quarantine", "retry"]],
    ids=" ".join,
)
def test_a_missing_database_is_reported_in_one_line_and_not_created(tmp_path: Path, arguments: list[str]) -> None:
    done = run_cli(tmp_path / "nothing.db", *arguments)
    assert_fails_with_one_line(done, str(tmp_path / "nothing.db"), "PROJECTOR_DATABASE_URL")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROJECTOR_DATABASE_URL", "nonsense"),
        ("PROJECTOR_DATABASE_URL", "sqlite:///"),
        ("PROJECTOR_SDK_APP_ID", "twelve"),
        ("PROJECTOR_SDK_APP_ID", "-1"),
        ("PROJECTOR_MAX_BODY_BYTES", "0"),
        ("CIPHER_TOPIC", "nonsense"),
        ("CIPHER_TOPIC", "nonsense:Nothing"),
        ("COMPRESSOR_TOPIC", "nonsense"),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line_that_names_it(database: Path, name: str, value: str) -> None:
    assert_fails_with_one_line(run_cli(database, "status", **{name: value}), name)


def test_a_file_that_is_not_a_database_is_reported_in_one_line_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear SQLite, I am not a database.\n" * 100)
    assert_fails_with_one_line(run_cli(tmp_path / "letter.txt", "status"), "not a database")
    assert_fails_with_one_line(run_cli(tmp_path, "status"), "unable to open database file")
    assert (tmp_path / "letter.txt").read_text() == "Dear SQLite, I am not a database.\n" * 100


def test_a_reader_that_closes_the_pipe_early_gets_the_first_line_and_no_error_message(long_history: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "projector", "events"],
        env=environment(long_history),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["position"] == 1
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


PRINTING = [["events"], ["status"], ["status", "--json"], ["quarantine", "list"], ["quarantine", "show", "1"]]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_output_to_a_full_disk_is_reported_in_one_line(database: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "projector", *arguments],
            env=environment(database),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (2, "projector: No space left on device\n")


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_pipe_that_is_closed_from_the_start_causes_no_error_message(database: Path, arguments: list[str]) -> None:
    buffered = {name: value for name, value in environment(database).items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "projector", *arguments], env=buffered, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A database written with a cipher, and the settings to read it."""
    key = {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher", "CIPHER_KEY": KEY}
    path = tmp_path_factory.mktemp("secret") / "events.db"
    with serving(path, **key) as server:
        for body in CALLBACKS:
            assert server.post(body).status_code == 200
        assert server.post(b'{"NewMemberList": "bob"').status_code == 400
        assert server.stop() == 0
    return path, key


def test_a_database_written_with_a_cipher_is_read_with_its_key(secret: tuple[Path, dict[str, str]]) -> None:
    database, key = secret
    assert b"bob" not in database.read_bytes()
    events = [json.loads(line) for line in run_cli(database, "events", **key).stdout.splitlines()]
    assert [event["callback"] for event in events] == CALLBACKS
    assert '{"NewMemberList": "bob"\n' in run_cli(database, "quarantine", "show", "1", **key).stdout
    assert run_cli(database, "replay", "--check", **key).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [["events"], ["status"], ["replay"], ["quarantine", "retry"], ["serve", "--port", "0"]],
    ids=" ".join,
)
def test_without_the_key_the_missing_setting_is_reported_in_one_line(
    secret: tuple[Path, dict[str, str]], arguments: list[str]
) -> None:
    assert_fails_with_one_line(run_cli(secret[0], *arguments), "CIPHER_KEY")


@pytest.mark.parametrize(
    "changed",
    [{"CIPHER_KEY": ANOTHER_KEY}, {"CIPHER_KEY": ""}, {"CIPHER_KEY": "too short"}, {"CIPHER_KEY": "AAAA"}],
    ids=["another key", "no key", "not base64", "a key of a wrong length"],
)
def test_a_wrong_key_is_reported_in_one_line(secret: tuple[Path, dict[str, str]], changed: dict[str, str]) -> None:
    database, key = secret
    assert_fails_with_one_line(run_cli(database, "events", **{**key, **changed}), "CIPHER_KEY")


@pytest.mark.parametrize(
    "name", ["PROJECTOR_CALLBACK_TOKN", "PROJECTOR_READ_TOKEN", "PROJECTOR_DATABASE_UR", "PROJECTOR_SPOOLPATH"]
)
def test_a_misspelt_setting_is_refused_with_the_right_name(tmp_path: Path, name: str) -> None:
    done = run_cli(tmp_path / "events.db", "serve", "--port", "0", **{name: "x"})
    assert_fails_with_one_line(done, name, "did you mean PROJECTOR_")


def test_another_unknown_setting_is_named_once_and_ignored(database: Path) -> None:
    done = run_cli(database, "status", PROJECTOR_SERVICE_HOST="10.0.0.1", PROJECTOR_PORT_8000_TCP_ADDR="10.0.0.1")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line["name"]) for line in lines] == [
        ("warning", "PROJECTOR_PORT_8000_TCP_ADDR"),
        ("warning", "PROJECTOR_SERVICE_HOST"),
    ]


def test_a_secret_is_read_from_a_file(database: Path, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text(f"sqlite:///{database}\n")
    named = {"PROJECTOR_DATABASE_URL_FILE": str(secret)}
    done = run_cli(tmp_path / "another.db", "status", "--json", PROJECTOR_DATABASE_URL="", **named)
    assert json.loads(done.stdout)["head"] == 6
    assert_fails_with_one_line(run_cli(database, "status", **named), "PROJECTOR_DATABASE_URL_FILE are both set")
    missing = {"PROJECTOR_CALLBACK_TOKEN_FILE": str(tmp_path / "missing")}
    assert_fails_with_one_line(
        run_cli(database, "status", **missing), "PROJECTOR_CALLBACK_TOKEN_FILE", "missing: No such file or directory"
    )
