"""Loss of power at any moment: what was acknowledged is recorded once, and the service starts again by itself."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.kinds import copied, generations
from tests.processes.campaign import rounds, summary
from tests.processes.databases import assert_served_as_recorded, history, write
from tests.processes.traffic import USERS, Ledger, callback, pouring
from tests.processes.waiting import until
from tests.running import assert_no_traceback, environment, run_cli, serving
from tests.system.disk import Journal, build_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.running import Server

pytestmark = [pytest.mark.system, pytest.mark.slow]  # a C compiler is needed

ROUNDS = rounds(8)
NEW_DISK_EVERY = 10
SEED = 20260204
NAMES = ("create", "symlink", "rename", "unlink", "synced")


@dataclass
class JournalledLedger(Ledger):
    """A ledger that notes how long the journal was when a callback had been acknowledged."""

    journal: Journal | None = None
    noted: list[tuple[int, int, int | None]] = field(default_factory=list)

    def acknowledge(self, serial: int, position: int | None) -> None:
        assert self.journal is not None
        self.noted.append((self.journal.size(), serial, position))
        super().acknowledge(serial, position)

    def lose_power(self, length: int) -> None:
        """Take back what was acknowledged only after the journal had this length."""
        self.cut += [serial for noted_at, serial, _ in self.noted if noted_at > length and serial % 10]
        self.noted = [(0, serial, position) for noted_at, serial, position in self.noted if noted_at <= length]
        self.acknowledged, self.spooled = {}, set()
        for _, serial, position in self.noted:
            if position is None:
                self.spooled.add(serial)
            else:
                self.acknowledged.setdefault(serial, set()).add(position)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


def left_after(prepared: Path, library: Path, *commands: Sequence[str]) -> Path:
    """Run commands in a folder, lose the power at their end, and return a folder with what is certain to be left."""
    journal = Journal(prepared, prepared.with_name("journal"), library)
    for command in commands:
        done = run_cli(prepared / "events.db", *command, **journal.settings)
        assert done.returncode == 0, done.stderr
    journal.lose_power(journal.records(), left := prepared.with_name("left"), random.Random(SEED), data=0, names=0)
    return left


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Return a folder with a few events."""
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / "events.db", range(1, 31), SEED)
    return tmp_path / "disk"


def test_what_is_acknowledged_is_left_whoever_opened_the_database_first(prepared: Path, library: Path) -> None:
    database, journal = prepared / "events.db", Journal(prepared, prepared.with_name("journal"), library)
    left = prepared.with_name("left")
    with serving(database, "--only", "queries", **journal.settings), serving(database, **journal.settings) as server:
        assert server.post(callback(31, SEED)).headers["Projector-Position"] == "31"
        length = journal.size()
        server.kill()
    journal.lose_power(
        [record for record in journal.records() if record[0] <= length], left, random.Random(SEED), data=0, names=0
    )
    assert len(history(left / "events.db")) == 31


def test_the_read_model_that_a_replay_made_live_is_live(prepared: Path, library: Path) -> None:
    left = left_after(prepared, library, ["replay"])
    assert run_cli(left / "events.db", "verify").returncode == 0
    (generation,) = generations(prepared / "events.db")
    assert generations(left / "events.db") == [generation]


def test_no_file_has_the_id_of_a_user_forgotten_before(prepared: Path, library: Path) -> None:
    left = left_after(prepared, library, ["replay"], ["replay"], ["forget", "--yes", USERS[0]])
    history_of_all = repr(history(left / "events.db"))
    assert f'"{USERS[0]}"' not in history_of_all
    assert "forgotten-" in history_of_all
    assert [file.name for file in left.iterdir() if f'"{USERS[0]}"'.encode() in file.read_bytes()] == []


def recovered(server: Server, ledger: Ledger, database: Path, work: Path) -> None:
    """Check that the server has become ready by itself, with every acknowledged callback."""
    until(lambda: server.get("/readyz").status_code == 200, of=server)
    until(lambda: server.get("/readyz").json()["spool"]["events"] == 0, of=server)
    copy = copied(database, work / "copy")
    recorded = history(copy)
    ledger.assert_kept(recorded)
    assert_served_as_recorded(server, copy)
    if recorded:
        verified = run_cli(copy, "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
    assert_no_traceback(server)
    shutil.rmtree(copy.parent)


@contextlib.contextmanager
def replaying(database: Path, *options: str, **settings: str) -> Iterator[None]:
    """Run a replay beside the server until the power is lost."""
    command = [sys.executable, "-m", "projector", "replay", *options]
    process = subprocess.Popen(
        command, env=environment(database, **settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


LOCK = """import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()"""


@contextlib.contextmanager
def locking(database: Path, **settings: str) -> Iterator[None]:
    """Hold a lock, so that callbacks go into the spool, in a process whose changes are in the journal too."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, database],
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.communicate()


BESIDE: dict[str, Callable[..., contextlib.AbstractContextManager[None]]] = {
    "nothing": lambda database, **_: contextlib.nullcontext(),
    "a lock": locking,
    "a replay": replaying,
    "a rollback": lambda database, **settings: replaying(database, "--rollback", **settings),
}


@dataclass
class Campaign:
    """The disk of one service after another loss of power, and what it owes to those who sent callbacks."""

    work: Path
    library: Path
    rng: random.Random
    cuts: int = 0
    acknowledged: int = 0

    def run(self) -> None:
        """Begin with an empty disk, lose the power again and again, and check what is there in the end."""
        ledger, disk = JournalledLedger(SEED), self.work / f"disk of {self.cuts}"
        disk.mkdir()
        for _ in range(min(NEW_DISK_EVERY, ROUNDS - self.cuts)):
            disk = self.one_more(disk, ledger)
        with serving(disk / "events.db", PROJECTOR_SPOOL_PATH=str(disk / "spool")) as server:
            recovered(server, ledger, disk / "events.db", self.work)
        shutil.rmtree(disk)
        self.acknowledged += len(ledger.acknowledged) + len(ledger.spooled)

    def one_more(self, disk: Path, ledger: JournalledLedger) -> Path:
        """Serve from this disk, lose the power, check what is left, and return the folder that has it."""
        journal = ledger.journal = Journal(disk, self.work / f"journal {self.cuts}", self.library)
        for _ in range(self.rng.randint(1, 2)):
            self.serve(disk / "events.db", ledger, journal)
        self.cuts += 1
        left = self.work / f"disk after {self.cuts}"
        records = self.choose(journal.records())
        journal.lose_power(records, left, self.rng, data=self.rng.choice([0, 0.5, 1]), names=self.rng.choice([0, 0.5]))
        ledger.lose_power(records[-1][0])
        shutil.rmtree(disk)
        journal.path.unlink()
        return left

    def serve(self, database: Path, ledger: JournalledLedger, journal: Journal) -> None:
        """Serve under load, and stop in one way or another."""
        settings = {**journal.settings, "PROJECTOR_SPOOL_PATH": f"{database.parent}/spool"}
        name, has_neighbour = str(self.rng.random()), self.rng.random() < 1 / 3
        with contextlib.ExitStack() as stack:
            if has_neighbour:
                stack.enter_context(serving(database, "--only", "projections", **journal.settings))
            server = stack.enter_context(serving(database, **settings))
            recovered(server, ledger, database, self.work)
            with pouring(server, ledger=ledger, name=name):
                ledger.wait_for(acknowledged=self.rng.randrange(1, 100))
                with BESIDE[self.rng.choice([*BESIDE])](database, **settings):
                    ledger.wait_for(acknowledged=self.rng.randrange(1, 200))
                    if self.rng.random() < 0.5:
                        server.kill()
            if server.process.poll() is None:
                server.stop()

    def choose(self, records: list[tuple[int, list[str], bytes]]) -> list[tuple[int, list[str], bytes]]:
        """Choose the moment: anywhere, at the end, or at a change or sync of a name."""
        places = [place for place, (_, words, _) in enumerate(records, 1) if words[0] in NAMES]
        return records[: self.rng.choice([self.rng.randint(1, len(records)), len(records), self.rng.choice(places)])]


def test_loss_of_power_loses_nothing_acknowledged_and_doubles_nothing_and_the_service_starts_again_by_itself(
    tmp_path: Path, library: Path
) -> None:
    campaign = Campaign(tmp_path, library, random.Random(SEED))
    while campaign.cuts < ROUNDS:
        campaign.run()
    summary(f"power lost {campaign.cuts} times, {campaign.acknowledged} callbacks acknowledged before")
