"""Pieces of the server's work, done by a process that kills itself before a chosen step.

A step is a statement that opens, changes or ends a transaction, or a change to a folder: nothing reaches a disk
between two of them.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import sqlite3
from itertools import count
from typing import TYPE_CHECKING, Any

from projector import cli
from projector.bootstrap import PROJECTIONS, open_generations, open_stores
from projector.event_store.quarantine import UnreadableRequest
from projector.subscription import Subscription
from tests.kinds import settings
from tests.processes.traffic import EPOCH, GROUPS, candidates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BATCH_SIZE = 6
NEVER = 0
SEED = 20221209
FORGOTTEN = "user25"


def catch_up(database: Path) -> None:
    events, read_model = open_stores(settings(database)).events, open_generations(settings(database)).live()
    Subscription(events, read_model, PROJECTIONS, batch_size=BATCH_SIZE).catch_up()
    read_model.close()
    events.close()


def append(database: Path) -> None:
    """Append, in one batch, an event that is already stored and four that are not."""
    events = open_stores(settings(database)).events
    events.append(candidates([3, 4, 5, 6, 7], SEED))
    events.close()


def replay(database: Path) -> None:
    _run(database, "replay")


def replay_by_name(database: Path) -> None:
    _run(database, "replay", "--projection", "profile")


def replay_a_group(database: Path) -> None:
    _run(database, "replay", "--group", GROUPS[0])


def roll_back(database: Path) -> None:
    _run(database, "replay", "--rollback")


def forget(database: Path) -> None:
    _run(database, "forget", "--yes", FORGOTTEN)


def keep_readable(database: Path, body: dict[str, Any]) -> None:
    """Put a callback into the quarantine that an earlier version could not read and this version can."""
    stores = open_stores(settings(database))
    request = UnreadableRequest(json.dumps(body).encode(), "too new", body["CallbackCommand"], None, EPOCH)
    stores.quarantine.keep(request)
    stores.events.close()


def retry_from_quarantine(database: Path) -> None:
    _run(database, "quarantine", "retry")


def does(work: Callable[[Path], None], database: Path, *, dies_at: int = NEVER) -> bool:
    """Do the work in a process of its own, which dies before that step; return whether it finished."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    process = forks.Process(target=_do, args=(work, database, dies_at))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def _do(work: Callable[[Path], None], database: Path, dies_at: int) -> None:
    steps, connect = count(1), sqlite3.connect

    def take_step() -> None:
        if next(steps) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(statement: str) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "PRAGMA")):
            take_step()

    def traced_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(trace)
        return connection

    def step_before(function: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **options: Any) -> Any:
            take_step()
            return function(*arguments, **options)

        return stepped

    sqlite3.connect = traced_connect
    for name in ("replace", "symlink", "unlink", "fsync"):
        setattr(os, name, step_before(getattr(os, name)))
    work(database)


def _run(database: Path, *arguments: str) -> None:
    os.environ["PROJECTOR_DATABASE_URL"] = f"sqlite:///{database}"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(arguments) in (0, 1)
