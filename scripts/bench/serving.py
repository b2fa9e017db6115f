"""Servers to be asked, each on cores of its own: ours, and those it is measured against."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

APP_ID = "1400000000"
_TICKS = os.sysconf("SC_CLK_TCK")


class Served(NamedTuple):
    """A server's address and the number of its process, which may have child processes."""

    url: str
    pid: int

    def pids(self) -> list[int]:
        """Return the numbers of all its processes."""
        found = [self.pid]
        for pid in found:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def receiver(self) -> Served:
        """Return the process that receives callbacks; `serve` starts it first."""
        return self._replace(pid=self.pids()[1])

    def move(self, cores: set[int]) -> None:
        """Run all threads of this process on these cores, without its child processes."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)

    def cpu_s(self) -> float:
        """Return the seconds of a core that all processes have had so far."""
        return sum(map(_cpu_s, self.pids()))

    def rss_mb(self) -> float:
        """Return how much memory the processes hold; each counts what it shares with others."""
        return sum(_kb(pid, "status", "VmRSS") for pid in self.pids()) / 1024

    def pss_mb(self) -> float:
        """Return how much memory the processes hold together."""
        return sum(_kb(pid, "smaps_rollup", "Pss") for pid in self.pids()) / 1024


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _kb(pid: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def serving(
    database: str, *arguments: str, cores: set[int], **settings: str
) -> contextlib.AbstractContextManager[Served]:
    """Start `projector serve` over the database at a URL, and stop it at the end."""
    environment = {"PROJECTOR_DATABASE_URL": database, "PROJECTOR_SDK_APP_ID": APP_ID, **settings}
    return _started(["projector", "serve", "--port", "0", *arguments], environment, cores)


def contender(name: str, database: str, *, cores: set[int]) -> contextlib.AbstractContextManager[Served]:
    """Start one of `scripts.bench.contenders`."""
    return _started(["scripts.bench.contenders", name], {"DATABASE_URL": database}, cores)


def build_read_model(database: Path) -> None:
    """Project all that is in an SQLite file."""
    environment = {"PROJECTOR_DATABASE_URL": f"sqlite:///{database}", "PROJECTOR_SDK_APP_ID": APP_ID}
    replay = [sys.executable, "-m", "projector", "replay"]
    subprocess.run(replay, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def _started(command: list[str], settings: dict[str, str], cores: set[int]) -> Iterator[Served]:
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", *command],
        env={**os.environ, **settings},
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    try:
        for line in process.stderr or ():
            log.append(line)
            if '"serving"' in line:
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield Served(json.loads(line)["address"], process.pid)
                break
        else:
            sys.exit(f"{' '.join(command)} did not start:\n{''.join(log)}")
    finally:
        process.terminate()
        process.wait()


def get(address: str) -> bytes:
    with urllib.request.urlopen(address) as response:
        return response.read()
