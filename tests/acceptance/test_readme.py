"""The commands and examples of the README, run."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.kinds import live_file
from tests.running import environment, run_cli, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(sh|json|text)\n(.*?)```", README, re.DOTALL)


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line.partition("   #")[0].partition("  #")[0].strip() for line in joined.splitlines() if line.strip()]


def test_the_curl_lines_answer_what_is_printed_below_them(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        curls = [(block, BLOCKS[place + 1][1]) for place, (_, block) in enumerate(BLOCKS) if block.startswith("curl")]
        assert len(curls) == 2
        for command, printed in curls:
            done = subprocess.run(
                ["sh", "-c", command.replace("http://127.0.0.1:8000", server.url)], capture_output=True, check=True
            )
            assert done.stdout.decode() == printed.strip()
            json.loads(printed)


@pytest.mark.slow
def test_the_output_of_a_replay_is_as_printed(tmp_path: Path) -> None:
    (printed,) = [block for kind, block in BLOCKS if kind == "text"]
    command = next(block for _, block in BLOCKS if block.startswith("curl"))
    database = tmp_path / "events.db"
    with serving(database) as server:
        subprocess.run(["sh", "-c", command.replace("http://127.0.0.1:8000", server.url)], check=True)
        server.get("/v1/groups", wait_for=1).raise_for_status()
        with closing(sqlite3.connect(live_file(database))) as connection, connection:
            connection.execute("DELETE FROM members")
        assert run_cli(database, "replay", "--check").returncode == 1
        assert run_cli(database, "replay").stdout == printed


@pytest.mark.slow
def test_the_commands_for_operators_work_beside_a_running_server(tmp_path: Path) -> None:
    (block,) = [block for _, block in BLOCKS if "projector status" in block]
    with serving(tmp_path / "events.db") as server:
        for command in commands(block):
            words = command.replace("http://127.0.0.1:8000", server.url).split()
            assert words[0] == "projector"
            done = subprocess.run(
                [sys.executable, "-m", *words], env=environment(tmp_path / "events.db"), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


def test_the_make_targets_it_names_exist_and_explain_themselves() -> None:
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    helped = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True, env=clean)
    explained = set(re.findall(r"^  make ([a-z-]+) ", helped.stdout, re.MULTILINE))
    assert targets <= explained | {"help"}
    assert {"run", "test", "test-system", "demo", "quick", "check"} <= explained


def test_every_page_it_links_to_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_address_it_lists_is_served_and_described(tmp_path: Path) -> None:
    listed = {address.partition("?")[0] for address in re.findall(r"^\| `(/v1/[^`]+)` \|", README, re.MULTILINE)}
    with serving(tmp_path / "events.db") as server:
        assert listed == set(server.get("/openapi.json").json()["paths"])
        for address in ("/readyz", "/metrics"):
            assert address in README
            assert server.get(address).status_code == 200
