"""`projector replay`: rebuild the read model from the events, compare, and put right what differs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from projector.bootstrap import PROJECTIONS, open_read_model, open_stores
from projector.cli.progress import Progress
from projector.read_model.sqlite import SQLiteReadModel
from projector.replay import replay

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from projector.replay import Difference
    from projector.settings import Settings

_SHOWN_GROUPS: Final = 100


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("replay", help="rebuild the read model from the events, compare, put right")
    parser.add_argument("--group", metavar="ID", help="compare and put right this group only")
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Replay, print each difference, and return 1 if there was one."""
    stores, live = open_stores(settings), open_read_model(settings)
    with _beside(settings) as empty, Progress("replay", "events", stores.events.head()) as progress:
        replayed = replay(
            stores.events,
            live,
            empty,
            PROJECTIONS,
            group_id=options.group,
            check=options.check,
            advanced=progress.advance,
        )
    _print_differences(replayed.differences)
    count = len(replayed.differences)
    outcome = "the read model is what the events say"
    if count:
        outcome = f"{count} row(s) differed" + ("" if options.check else " and were put right")
    sys.stdout.write(f"position {replayed.position}: {outcome}\n")
    return 1 if count else 0


@contextlib.contextmanager
def _beside(settings: Settings) -> Iterator[SQLiteReadModel]:
    """Give an empty read model in files of its own, which go when it is done with; so do any left behind."""
    path = f"{settings.read_model_path}.rebuild"
    files = [Path(path + suffix) for suffix in ("", "-wal", "-shm")]
    with _one_at_a_time(Path(path).parent):
        for file in files:
            file.unlink(missing_ok=True)
        empty = SQLiteReadModel(path)
        try:
            yield empty
        finally:
            empty.close()
            for file in files:
                file.unlink(missing_ok=True)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for another replay in this folder; the lock goes with the process that holds it, however it ends."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _print_differences(differences: list[Difference]) -> None:
    ordered = sorted(differences, key=lambda difference: difference.key)
    for group_id, found in islice(groupby(ordered, key=lambda difference: difference.key[0]), _SHOWN_GROUPS):
        sys.stdout.write(f"group {group_id}\n")
        for difference in found:
            key = " ".join(difference.key[1:])
            sys.stdout.write(f"  {difference.table} {key}\n    was      {difference.live}\n")
            sys.stdout.write(f"    must be  {difference.rebuilt}\n")
    groups = len({difference.key[0] for difference in differences})
    if groups > _SHOWN_GROUPS:
        sys.stdout.write(f"and {groups - _SHOWN_GROUPS} more groups\n")
