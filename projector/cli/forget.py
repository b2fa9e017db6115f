"""`projector forget`: take people out of the history, for good."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from projector.bootstrap import open_stores
from projector.cli import replay
from projector.cli.progress import Progress
from projector.forgetting import find_mentions, forget

if TYPE_CHECKING:
    from projector.bootstrap import Stores
    from projector.forgetting import Mentions
    from projector.settings import Settings


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("forget", help="take people out of the history, for good")
    parser.add_argument("users", nargs="+", type=_account, metavar="USER", help="the id of an account")
    parser.add_argument("--dry-run", action="store_true", help="only say where they are named")
    replay.add_jobs_to(parser)
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Forget, build the read model anew, and return 1 if there are events that could not be looked into."""
    stores = open_stores(settings)
    with closing(stores.events):
        found = _look_for(stores, options) if options.dry_run else _forget(stores, options)
        if not options.dry_run:
            replay.renew(options, settings, stores.events)
    if found.undecodable:
        _say(f"{found.undecodable} events cannot be decoded, and may name anybody; `projector verify` says which")
    return 1 if found.undecodable else 0


def _look_for(stores: Stores, options: argparse.Namespace) -> Mentions:
    with Progress("forget", "events", stores.events.head()) as progress:
        found = find_mentions(stores.events, options.users, on_progress=progress.advance)
    _say(f"named in {found.events} events of {found.groups} groups; nothing was changed")
    return found


def _forget(stores: Stores, options: argparse.Namespace) -> Mentions:
    with Progress("forget", "events", stores.events.head()) as progress:
        found, names = forget(stores.events, stores.quarantine, options.users, on_progress=progress.advance)
    _say(f"redacted {found.events} events of {found.groups} groups, {found.quarantined} callbacks in the quarantine")
    for account, pseudonym in names.items():
        _say(f"{account} is {pseudonym} from now on")
    return found


def _account(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty id is nobody's")
    return text


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
