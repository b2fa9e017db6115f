"""Freeze stores written by this version as test data: `python -m scripts.freeze` writes tests/frozen/VERSION.

Processes of a wheel, by default one built from this tree, write the stores over HTTP, with a clock that is set. This is
done once for a release; nothing that was frozen is written again.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from scripts.freeze.responses import responses
from scripts.freeze.traffic import FORGOTTEN, NOW, UNREADABLE, simulated, traffic
from tests import kinds
from tests.frozen.frozen import HERE, Acknowledgement, Clock, Frozen, post, rows, write_lines, writing
from tests.kinds import on_postgresql, url_of
from tests.postgresql import running
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.frozen.frozen import Request
    from tests.postgresql import PostgreSQL

ROOT = Path(__file__).parents[2]
KEY = "c2l4dGVlbiBieXRlcyBvaw=="  # for test data only
STORES: dict[str, dict[str, Any]] = {
    "plain": {"traffic": "full", "settings": {}},
    "compressed": {"traffic": "small", "settings": {"COMPRESSOR_TOPIC": "zlib"}},
    "encrypted": {
        "traffic": "small",
        "settings": {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher", "CIPHER_KEY": KEY},
    },
}
TRAFFIC = {"full": ["small", "large", "after", "spool"], "small": ["small", "after", "spool"]}


class Freezing:
    """Writes a store, and packs its files."""

    def __init__(self, into: Path, name: str, clock: Clock, wheel: dict[str, str]) -> None:
        self.seen: dict[str, Any] = {}
        self.quarantine: list[str] = []
        self.responses: list[dict[str, Any]] = []
        self._into, self._name, self._clock = into, name, clock
        self._settings = clock.settings(wheel, unreadable=UNREADABLE) | STORES[name]["settings"]

    def write(self, folder: Path, requests: list[Request], openapi: Path) -> None:
        """Write the store in an empty folder."""
        database = folder / "events.db"
        settings = self._settings | self._no_spool(folder)
        with writing(database, requests, FORGOTTEN, self._clock, **settings) as (server, acknowledged):
            self.responses = responses(server)
            openapi.write_text(json.dumps(server.get("/openapi.json").json(), indent=1) + "\n")
        self._describe(database, " ".join(map(str, acknowledged)))
        self._spool(database, [request for request in requests if request.part == "spool"])

    def pack(self, folder: Path, server: PostgreSQL | None) -> None:
        """Pack the database and the spool."""
        if server is None:
            _pack(self._into / f"{self._name}.sqlite.tar.gz", folder)
            return
        _pack(self._into / f"{self._name}.postgresql.spool.tar.gz", folder)
        options = ("--inserts", "--rows-per-insert=100", "--no-owner", "--no-privileges")
        url = url_of(folder / "events.db")
        dump = subprocess.run([server.binaries / "pg_dump", *options, url], capture_output=True, check=True).stdout
        # Lines that begin with a backslash are commands of psql, not SQL.
        statements = b"".join(line for line in dump.splitlines(keepends=True) if not line.startswith(b"\\"))
        (self._into / f"{self._name}.postgresql.sql.gz").write_bytes(gzip.compress(statements, mtime=0))

    def _describe(self, database: Path, acknowledged: str) -> None:
        verified = self._run(database, "verify").stdout.splitlines()
        status = json.loads(self._run(database, "status", "--json").stdout)
        pseudonyms = rows(database, "SELECT pseudonym FROM forgotten ORDER BY id")
        self.quarantine = self._run(database, "quarantine", "list").stdout.splitlines()
        self.seen = {
            **STORES[self._name],
            "head": status["head"],
            "digest": next(line.removeprefix("digest: ") for line in verified if line.startswith("digest: ")),
            "forgotten": dict(zip(FORGOTTEN, (pseudonym for (pseudonym,) in pseudonyms), strict=True)),
            "status": {name: status[name] for name in ("head", "projections", "counts", "quarantine")},
            "spool": {"events": 3, "unreadable": 1},
            "acknowledged": acknowledged,
        }

    def _spool(self, database: Path, requests: list[Request]) -> None:
        """Post while the database is locked, so that everything is spooled, and kill the receiver."""
        spool = {"PROJECTOR_SPOOL_PATH": str(database.parent / "spool" / "projector.spool")}
        (database.parent / "spool").mkdir(exist_ok=True)
        with (
            serving(database, "--only", "callbacks", **self._settings, **spool) as server,
            _locked(database),
        ):
            acknowledged = post(server, requests, self._clock)
            server.kill()
            if on_postgresql():
                time.sleep(2)  # longer than a statement of the dead process waits for a lock
        assert acknowledged == [Acknowledgement(200, None)] * 3 + [Acknowledgement(400, None)]

    def _no_spool(self, folder: Path) -> dict[str, str]:
        return {"PROJECTOR_SPOOL_PATH": str(folder.parent / f"{folder.name}.spool")} if on_postgresql() else {}

    def _run(self, database: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = run_cli(database, *arguments, **self._settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    if on_postgresql():
        with psycopg.connect(url_of(database)) as server:
            server.execute("LOCK TABLE stored_events, quarantine IN ACCESS EXCLUSIVE MODE")
            yield
        return
    with closing(sqlite3.connect(database, isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        yield
        file.execute("ROLLBACK")


def _pack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "w:gz") as files:
        for file in sorted(folder.rglob("*")):
            if not file.name.endswith(("-shm", ".lock")):
                files.add(file, file.relative_to(folder), recursive=False)


def _wheel(given: str | None, folder: Path) -> Path:
    if given:
        return Path(shutil.copy(given, folder))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _freeze(wheel: Path, into: Path, work: Path) -> None:
    """Write the stores of a wheel and all that goes with them; both databases must give the same responses."""
    shutil.copy(wheel, into)
    settings = Frozen(into).unpack_wheel(work / "code")
    clock = Clock(work / "clock", NOW)
    requests = traffic(simulated(work, **clock.settings(settings)))
    write_lines(
        into / "requests.ndjson.gz",
        (each._asdict() | {"body": each.body.decode(errors="surrogateescape")} for each in requests),
    )
    manifest: dict[str, Any] = {"traffic": TRAFFIC, "unreadable": UNREADABLE, "stores": {}}
    golden: dict[str, list[dict[str, Any]]] = {}
    with running() as postgresql:
        for server, name in itertools.product((None, postgresql), STORES):
            kinds.use(server)
            kind = "postgresql" if server else "sqlite"
            (folder := work / f"{name}-{kind}").mkdir()
            freezing = Freezing(into, name, clock, settings)
            used = STORES[name]["traffic"]
            freezing.write(
                folder, [request for request in requests if request.part in TRAFFIC[used]], into / "openapi.json"
            )
            freezing.pack(folder, server)
            entry = manifest["stores"].setdefault(name, freezing.seen | {"quarantine": {}})
            entry["quarantine"][kind] = freezing.quarantine
            assert freezing.seen.items() <= entry.items()
            assert golden.setdefault(used, freezing.responses) == freezing.responses
            print(f"{name} on {kind}: {entry['head']} events, {len(golden[used])} responses")
    for used, golden_responses in golden.items():
        write_lines(into / f"{used}.responses.ndjson.gz", golden_responses)
    (into / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.freeze", description=__doc__)
    parser.add_argument("--wheel", help="the version to freeze (default: a wheel built from this tree)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for folder in (work / "wheel", work / "frozen"):
            folder.mkdir()
        wheel = _wheel(options.wheel, work / "wheel")
        target = HERE / wheel.name.split("-")[1]
        if target.exists():
            parser.error(f"{target} exists; nothing that was frozen is written again")
        _freeze(wheel, work / "frozen", work)
        shutil.copytree(work / "frozen", target)


if __name__ == "__main__":
    main()
