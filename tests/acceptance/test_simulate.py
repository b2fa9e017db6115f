"""The simulator against a real server; it predicts the state without the code of the folds and of the oracle."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import environment, run_cli, serving

TOKENS = {"PROJECTOR_CALLBACK_TOKEN": "in", "PROJECTOR_READ_TOKENS": "out,other"}
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares", [("0", "0", "0"), ("0.05", "0.05", "0.02"), ("0.5", "0.9", "0"), ("0.3", "0.3", "0.4"), ("1", "0", "1")]
)
def test_every_roster_comes_out_right_whatever_is_repeated_late_or_untimed(
    tmp_path: Path, shares: tuple[str, str, str]
) -> None:
    repeats, reordered, untimed = shares
    with serving(tmp_path / "events.db", **TOKENS) as server:
        done = run_cli(
            tmp_path / "events.db",
            *("simulate", "--url", server.url, "--callbacks", "6000", "--groups", "60", "--seed", repeats[-1]),
            *("--repeats", repeats, "--reordered", reordered, "--untimed", untimed),
            **TOKENS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "60 groups checked, no mismatches" in done.stdout
        assert re.search(r"simulate: \d+ of \d+ callbacks", done.stderr), "plain lines where there is no terminal"
        check = run_cli(tmp_path / "events.db", "replay", "--check")
        assert (check.returncode, "matches the history" in check.stdout) == (0, True)


def test_a_roster_that_is_wrong_is_found(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        arguments = ("simulate", "--url", server.url, "--callbacks", "300", "--groups", "5")
        assert run_cli(tmp_path / "events.db", *arguments).returncode == 0
        with sqlite3.connect(tmp_path / "events.db.read-model") as connection:
            connection.execute(
                "CREATE TRIGGER spoil AFTER INSERT ON rosters BEGIN UPDATE rosters SET member_count = 77; END"
            )
        connection.close()
        done = run_cli(tmp_path / "events.db", *arguments, "--seed", "2")
        assert done.returncode == 1
        assert "member_count is 77" in done.stdout


def test_an_address_where_nothing_answers_is_one_line(tmp_path: Path) -> None:
    for address, message in (
        ("http://127.0.0.1:1", "cannot connect to http://127.0.0.1:1"),
        ("nonsense", "not an address"),
    ):
        done = run_cli(tmp_path / "events.db", "simulate", "--url", address)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_demo_shows_a_roster() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py"], capture_output=True, text=True, env=environment(Path("unused"))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 groups checked, no mismatches" in done.stdout
    assert re.search(r" members\n( +\S.* since \d{4}-.*\n){3,}", done.stdout)
