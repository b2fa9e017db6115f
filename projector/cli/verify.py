"""`projector verify`: whether the history is whole, and the read model what it says."""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

from projector.bootstrap import open_events
from projector.cli import replay
from projector.cli.progress import Progress
from projector.verification import Digest, verify_history

if TYPE_CHECKING:
    from projector.settings import Settings

_HEX: Final = re.compile("[0-9a-f]{64}")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("verify", help="look at every event, and compare the read model with what they say")
    parser.add_argument("--log-only", action="store_true", help="leave the read model out")
    parser.add_argument(
        "--expect", type=_digest, metavar="DIGEST", help="a digest from before, of which the events must still be"
    )
    replay.add_jobs_to(parser)
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Verify beside a running server, print every fault, and return 1 if there was one."""
    with closing(open_events(settings)) as store:
        with Progress("verify", "events", store.head()) as progress:
            verified = verify_history(store, on_fault=_say, on_progress=progress.advance, expected=options.expect)
        outcome = f"{verified.faults} fault(s)" if verified.faults else "whole"
        redacted = f", {verified.redacted} of them redacted" if verified.redacted else ""
        _say(f"history: {verified.events} events of {verified.groups} groups{redacted}, {outcome}")
        _say(f"digest: {verified.digest}")
        differs = 0 if options.log_only else replay.check(options, settings, store)
    return 1 if verified.faults or differs else 0


def _digest(text: str) -> Digest:
    """Return the digest that `verify` has printed."""
    position, _, value = text.partition(":")
    if not (position.isascii() and position.isdigit() and _HEX.fullmatch(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is no digest: give what `projector verify` has printed as one")
    return Digest(int(position), bytes.fromhex(value))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
