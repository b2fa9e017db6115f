"""`projector forget`: replace users' ids by pseudonyms, permanently."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing, suppress

from projector.bootstrap import Stores, open_queries, open_stores
from projector.cli import replay
from projector.cli.output import note, say
from projector.cli.progress import Progress
from projector.forgetting import Mentions, begin, find_mentions
from projector.read_model import NoReadModel
from projector.settings import Settings


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "forget",
        help="replace users' ids by pseudonyms, permanently",
        description="Replace users' ids by pseudonyms, permanently. Without USER, complete what was interrupted.",
    )
    parser.add_argument("users", nargs="*", type=_account, metavar="USER", help="the id of an account")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--unseen", action="store_true", help="forget users that no event mentions, too")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="only report where they are mentioned")
    mode.add_argument("--list", action="store_true", help="list the pseudonyms of forgotten users")
    mode.add_argument("--lift", type=_account, metavar="USER", help="record a forgotten user under the own id again")
    replay.add_jobs_to(parser)
    parser.set_defaults(run=run, needs_database=True, refuse=parser.error)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Forget, and rebuild the read model; return 1 if that is refused, or if events could not be searched."""
    if options.users and (options.list or options.lift):
        options.refuse("--list and --lift are used without USER")
    stores = open_stores(settings, read_only=options.dry_run or options.list)
    with closing(stores.events):
        if options.list:
            return _list(stores)
        if options.lift:
            return _lift(stores, settings, options.lift)
        if options.dry_run:
            return _dry_run(stores, options)
        return _forget(stores, settings, options)


def _list(stores: Stores) -> int:
    unfinished = {forgetting.pseudonym for forgetting in stores.events.forgotten.unfinished()}
    for pseudonym, is_lifted in stores.events.forgotten.all():
        say(pseudonym + ("  lifted" if is_lifted else "  unfinished" if pseudonym in unfinished else ""))
    return 0


def _lift(stores: Stores, settings: Settings, user: str) -> int:
    forgotten = stores.events.forgotten
    pseudonym = forgotten.pseudonyms().of({user}).get(user)
    if pseudonym is None:
        note(f"projector: {user} is not forgotten")
        return 1
    if forgotten.unfinished_count():
        note("projector: forgetting is unfinished; run `projector forget` first")
        return 1
    with closing(open_queries(settings)) as queries, queries.session() as session:
        memberships = session.groups_of(pseudonym, "", 1)
    if memberships:
        note(f"projector: {pseudonym} is still a member of group {memberships[0].group_id}")
        return 1
    forgotten.lift(pseudonym)
    say(f"{user} is recorded under this id from now on; earlier events keep {pseudonym}")
    return 0


def _dry_run(stores: Stores, options: argparse.Namespace) -> int:
    if not options.users:
        options.refuse("--dry-run needs a USER")
    mentions = _find(stores, options.users)
    say(f"mentioned in {mentions.events} events of {mentions.groups} groups; nothing was changed")
    return _status(mentions)


def _forget(stores: Stores, settings: Settings, options: argparse.Namespace) -> int:
    forgotten = stores.events.forgotten
    if not options.users and not forgotten.unfinished_count():
        options.refuse("no forgetting was interrupted; name a USER to forget")
    if not options.unseen and (unseen := [user for user in options.users if not _is_seen(stores, settings, user)]):
        note(f"projector: no event mentions {', '.join(unseen)}; use --unseen to forget them all the same")
        return 1
    if options.users and not options.yes and not _is_confirmed(options):
        note("projector: nothing was changed")
        return 1
    for user in options.users:
        say(f"{user} is now {begin(stores.events, user)}")
    return _status(replay.finish_forgetting(options, settings, stores))


def _is_seen(stores: Stores, settings: Settings, user: str) -> bool:
    if stores.events.forgotten.pseudonyms().of({user}):
        return True
    with suppress(NoReadModel), closing(open_queries(settings)) as queries, queries.session() as session:
        if session.knows_user(user):
            return True
    return _find(stores, [user]).events > 0


def _is_confirmed(options: argparse.Namespace) -> bool:
    if not sys.stdin.isatty():
        options.refuse("without a terminal, forgetting needs --yes")
    users = ", ".join(options.users)
    note(f"Replace {users} by a pseudonym in everything that is stored? This cannot be undone. [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _find(stores: Stores, users: list[str]) -> Mentions:
    with Progress("search", "events", stores.events.head()) as progress:
        return find_mentions(stores.events, users, on_progress=progress.advance)


def _status(mentions: Mentions) -> int:
    if not mentions.undecodable:
        return 0
    say(f"{mentions.undecodable} events or callbacks cannot be decoded, and may mention them; see `projector verify`")
    return 1


def _account(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("USER must not be empty")
    return text
