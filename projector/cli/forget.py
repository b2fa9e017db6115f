"""`projector forget`: replace users' ids by pseudonyms, permanently."""

from __future__ import annotations

import argparse
from contextlib import closing

from projector.bootstrap import Stores, open_stores
from projector.cli import replay
from projector.cli.output import say
from projector.cli.progress import Progress
from projector.forgetting import Mentions, find_mentions, forget
from projector.settings import Settings


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("forget", help="replace users' ids by pseudonyms, permanently")
    parser.add_argument("users", nargs="+", type=_account, metavar="USER", help="the id of an account")
    parser.add_argument("--dry-run", action="store_true", help="only report where they are mentioned")
    replay.add_jobs_to(parser)
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Forget, and rebuild the read model; return 1 if events could not be decoded and so not be searched."""
    stores = open_stores(settings)
    with closing(stores.events):
        mentions = _find(stores, options) if options.dry_run else _forget(stores, options)
        if not options.dry_run:
            replay.replace_all(options, settings, stores.events)
    if mentions.undecodable:
        say(f"{mentions.undecodable} events cannot be decoded, and may mention them; see `projector verify`")
    return 1 if mentions.undecodable else 0


def _find(stores: Stores, options: argparse.Namespace) -> Mentions:
    with Progress("forget", "events", stores.events.head()) as progress:
        mentions = find_mentions(stores.events, options.users, on_progress=progress.advance)
    say(f"mentioned in {mentions.events} events of {mentions.groups} groups; nothing was changed")
    return mentions


def _forget(stores: Stores, options: argparse.Namespace) -> Mentions:
    with Progress("forget", "events", stores.events.head()) as progress:
        mentions, pseudonyms = forget(stores.events, stores.quarantine, options.users, on_progress=progress.advance)
    say(
        f"redacted {mentions.events} events of {mentions.groups} groups,"
        f" and {mentions.quarantined} callbacks in the quarantine"
    )
    for account, pseudonym in pseudonyms.items():
        say(f"{account} is now {pseudonym}")
    return mentions


def _account(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("USER must not be empty")
    return text
