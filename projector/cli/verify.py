"""`projector verify`: check the history, and compare the read model with it."""

from __future__ import annotations

import argparse
import re
from contextlib import closing
from typing import Final

from projector.bootstrap import open_events
from projector.cli import replay
from projector.cli.output import say
from projector.cli.progress import Progress
from projector.settings import Settings
from projector.verification import Digest, verify_history

_HEX: Final = re.compile("[0-9a-f]{64}")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("verify", help="check every event, and compare the read model with the history")
    parser.add_argument("--log-only", action="store_true", help="check the history only")
    parser.add_argument(
        "--expect", type=_digest, metavar="DIGEST", help="fail unless the history still matches this digest"
    )
    replay.add_jobs_to(parser)
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Verify beside a running server and print every fault; return 1 if there is any.

    Return 2 if the history has none, and there is no read model to compare with it.
    """
    with closing(open_events(settings, read_only=True)) as store:
        with Progress("verify", "events", store.head()) as progress:
            result = verify_history(store, on_fault=say, on_progress=progress.advance, expected=options.expect)
        redacted = f", {result.redacted} of them redacted" if result.redacted else ""
        faults = f"{result.faults or 'no'} fault{'s' * (result.faults != 1)}"
        say(f"history: {result.events} events in {result.groups} groups{redacted}, {faults}")
        say(f"digest: {result.digest}")
        if unfinished := store.forgotten.unfinished_count():
            say(f"forgetting: {unfinished} user{'s' * (unfinished != 1)}, in progress or interrupted")
        compared = 0 if options.log_only else replay.check(options, settings, store)
    return 1 if result.faults else compared


def _digest(text: str) -> Digest:
    position, _, value = text.partition(":")
    is_empty = text == str(Digest(0, b""))
    if not is_empty and not (position.isascii() and position.isdigit() and _HEX.fullmatch(value)):
        raise argparse.ArgumentTypeError(
            f"invalid digest {text!r}: expected POSITION:HASH as printed by `projector verify`"
        )
    return Digest(int(position), bytes.fromhex(value))
