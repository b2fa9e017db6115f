"""Contenders as processes of their own, on the cores they are given, taking turns."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def run(module: str, *arguments: str, cores: set[int], **environment: str) -> dict[str, Any]:
    """Run a contender and return its measurements: the JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(done.stdout.splitlines()[-1])


def some_cores(count: int) -> set[int]:
    """Return so many of the cores there are."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < count:
        sys.exit(f"this needs {count} cores, and there are {len(cores)}")
    return set(cores[-count:])


def median(results: list[dict[str, Any]], column: str) -> float:
    return statistics.median(result[column] for result in results)


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {cores} cores, {platform.machine()}"


def keep(file: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write the measurements for the charts, if a file is given."""
    if file:
        contents = {"machine": machine(), "rows": rows}
        file.write_text(json.dumps(contents, indent=1) + "\n")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
