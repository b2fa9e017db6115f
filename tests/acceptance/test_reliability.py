"""The tests that docs/reliability.md names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"`(?:ROUNDS=\d+ )?pytest ([^`]+)`", (ROOT / "docs" / "reliability.md").read_text())


def named_in(path: Path) -> list[str]:
    return [
        f"{file.stem} {node.name}"
        for file in (path.glob("test_*.py") if path.is_dir() else [path])
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_files_that_are_there_and_chooses_some_of_their_tests(command: str) -> None:
    files, _, chosen = command.partition(" -k ")
    names = [name for file in files.split() for name in named_in(ROOT / file)]
    assert names
    words = [word for word in re.findall(r"\w+", chosen) if word not in ("or", "and", "not", "sqlite", "token")]
    assert all(any(word in name for name in names) for word in words)


def test_there_are_many() -> None:
    assert len(COMMANDS) > 20
