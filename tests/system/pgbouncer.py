"""A real pgbouncer, from Debian's package, in front of a PostgreSQL of the tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.postgresql import NOBODY, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgresql import PostgreSQL

_OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
(RECOMMENDED,) = re.findall(r"```ini\n(.*?)```", _OPERATIONS, re.DOTALL)
_DEADLINE_S = 30


class PgBouncer:
    """Run as nobody, since pgbouncer refuses to be root. Its settings are those of docs/operations.md, and more."""

    def __init__(self, server: PostgreSQL, *more: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        settings = ("auth_type = any", "listen_addr = 127.0.0.1", f"listen_port = {self.port}", "unix_socket_dir =")
        address = f"host=127.0.0.1 port={server.port} user=postgres"
        lines = ("[databases]", f"* = {address}", RECOMMENDED, *settings, *more)
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert binary, "pgbouncer is not installed; run `make test-system`"
        with (self.folder / "log").open("ab") as log:
            command = [binary, str(self.folder / "pgbouncer.ini")]
            self._process = subprocess.Popen(command, stderr=log, user=NOBODY, group=NOBODY)
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)
            else:
                return

    def stop(self, *, immediately: bool = False) -> None:
        """Stop it; immediately is as if it crashed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if immediately else signal.SIGINT)
            self._process.wait(timeout=_DEADLINE_S)
            self._process = None

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def remove(self) -> None:
        self.stop(immediately=True)
        shutil.rmtree(self.folder)


@contextmanager
def pooling(server: PostgreSQL, *settings: str) -> Iterator[PgBouncer]:
    """Run pgbouncer in front of a server; `settings` (`name = value`) override those recommended."""
    pooler = PgBouncer(server, *settings)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.remove()
