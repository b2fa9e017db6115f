"""`projector verify`: whether the history is whole, and the read model what it says."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from projector.bootstrap import open_events
from projector.cli import replay
from projector.cli.progress import Progress
from projector.verification import verify_log

if TYPE_CHECKING:
    import argparse

    from projector.settings import Settings


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("verify", help="look at every event, and compare the read model with what they say")
    parser.add_argument("--log-only", action="store_true", help="leave the read model out")
    replay.add_jobs_to(parser)
    parser.set_defaults(
        run=run, needs_database=True, projection=None, group=None, rollback=False, if_needed=False, check=True
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Verify beside a running server, print every fault, and return 1 if there was one."""
    with closing(open_events(settings)) as store, Progress("verify", "events", store.head()) as progress:
        verified = verify_log(store, found=_say, advanced=progress.advance)
    outcome = f"{verified.faults} fault(s)" if verified.faults else "whole"
    _say(f"history: {verified.events} events of {verified.groups} groups, {outcome}")
    differs = 0 if options.log_only else replay.run(options, settings)
    return 1 if verified.faults or differs else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
