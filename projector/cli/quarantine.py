"""`projector quarantine`: look at authentic callbacks that could not be read, and try them again."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from projector.bootstrap import Stores, open_stores
from projector.callbacks import Unreadable, carries_group_state, command_of, translate
from projector.cli.arguments import whole_number
from projector.clock import to_rfc3339
from projector.event_store import Candidate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from projector.event_store.quarantine import Quarantined
    from projector.settings import Settings


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("quarantine", help="unreadable callbacks: list, show, retry")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what waits, one line each")
    listing.set_defaults(run=_list, needs_database=True)
    showing = actions.add_parser("show", help="one of them, with its body as it came")
    showing.add_argument("id", type=whole_number(1))
    showing.set_defaults(run=_show, needs_database=True)
    retrying = actions.add_parser("retry", help="read them again, after an upgrade that can")
    retrying.add_argument("id", type=whole_number(1), nargs="?", help="only this one")
    retrying.set_defaults(run=_retry, needs_database=True)
    dropping = actions.add_parser("drop", help="let go of some for good")
    dropping.add_argument("ids", type=whole_number(1), nargs="+", metavar="id")
    dropping.set_defaults(run=_drop, needs_database=True)


def _list(_: argparse.Namespace, settings: Settings) -> int:
    with _opened(settings) as stores:
        for entry in _waiting(stores):
            sys.stdout.write(_line(entry) + "\n")
    return 0


def _show(options: argparse.Namespace, settings: Settings) -> int:
    with _opened(settings) as stores:
        entry = stores.quarantine.find(options.id)
    if entry is None:
        sys.stderr.write(f"projector: there is no {options.id} in the quarantine; see `projector quarantine list`\n")
        return 1
    sys.stdout.write(_line(entry) + "\n")
    if entry.position:
        sys.stdout.write(f"released as the event at position {entry.position}\n")
    sys.stdout.flush()
    sys.stdout.buffer.write(entry.body + b"\n")
    return 0


def _drop(options: argparse.Namespace, settings: Settings) -> int:
    with _opened(settings) as stores:
        for quarantine_id in options.ids:
            stores.quarantine.drop(quarantine_id)
    return 0


def _retry(options: argparse.Namespace, settings: Settings) -> int:
    with _opened(settings) as stores:
        return _retried(stores, options)


def _retried(stores: Stores, options: argparse.Namespace) -> int:
    found = stores.quarantine.find(options.id) if options.id else None
    if options.id and (found is None or found.position):
        sys.stderr.write(f"projector: {options.id} does not wait in the quarantine\n")
        return 1
    left = 0
    for entry in [found] if found else _waiting(stores):
        try:
            position = _release(stores, entry)
        except Unreadable as error:
            left += 1
            sys.stdout.write(f"{entry.id}  still unreadable: {error}\n")
        else:
            sys.stdout.write(f"{entry.id}  is now the event at position {position}\n")
    return 1 if left else 0


@contextmanager
def _opened(settings: Settings) -> Iterator[Stores]:
    stores = open_stores(settings)
    with closing(stores.events):
        yield stores


def _release(stores: Stores, entry: Quarantined) -> int:
    """Append what an entry says, as received when it was; a crash in between makes a repeat, not a loss."""
    command = command_of({"callbackcommand": entry.command or ""}, entry.body)
    if not carries_group_state(command):
        raise Unreadable(f"{command} is not recorded")
    translation = translate(command, entry.body, platform=entry.platform, received_at=entry.received_at)
    (appended,) = stores.events.append([Candidate(translation.event, translation.identity)])
    assert appended.position is not None
    stores.quarantine.release(entry.id, appended.position)
    return appended.position


def _waiting(stores: Stores) -> Iterator[Quarantined]:
    after = 0
    while page := stores.quarantine.waiting(after):
        yield from page
        after = page[-1].id


def _line(entry: Quarantined) -> str:
    command = entry.command or "-"
    return f"{entry.id}  {to_rfc3339(entry.received_at)}  {entry.times}x  {command}  {entry.reason}"
