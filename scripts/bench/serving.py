"""A server to be asked, on a core of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP_ID = "1400000000"


@contextlib.contextmanager
def serving(database: Path, *arguments: str, cores: set[int]) -> Iterator[str]:
    """Start `projector serve`, give its address, and stop it at the end."""
    settings = {"PROJECTOR_DATABASE_URL": f"sqlite:///{database}", "PROJECTOR_SDK_APP_ID": APP_ID}
    process = subprocess.Popen(
        [sys.executable, "-m", "projector", "serve", "--port", "0", *arguments],
        env={**os.environ, **settings},
        stderr=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, cores)
    try:
        yield next(json.loads(line)["address"] for line in process.stderr or () if '"serving"' in line)
    finally:
        process.terminate()
        process.communicate()


def ask(address: str) -> bytes:
    with urllib.request.urlopen(address) as answer:
        return answer.read()
