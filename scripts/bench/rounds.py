"""Contenders as processes of their own, on the cores they are given, taking turns."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SEED = 1
"""Of all random numbers."""


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


def machine(folder: Path | None = None) -> str:
    """Return what the results depend on: versions, cores, the seed, and how commits are synced."""
    versions = [f"{name} {version(name)}" for name in ("uvicorn", "starlette", "eventsourcing", "psycopg")]
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}", *versions]
    cores = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"
    synced = f"synchronous=FULL, fsync=on, {sync_ms(folder):.2f} ms per fdatasync"
    return f"{', '.join(versions)}; {cores}; seed {SEED}; {synced}"


def sync_ms(folder: Path | None = None) -> float:
    """Return the median time to sync five pages in a folder, by default that of temporary files."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(100):
            file.write(bytes(5 * 4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def keep(file: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write the measurements for the charts, if a file is given."""
    if file:
        contents = {"machine": machine(), "rows": rows}
        file.write_text(json.dumps(contents, indent=1) + "\n")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
