"""`projector quarantine`: authentic callbacks that could not be read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from projector.bootstrap import Stores, open_stores
from projector.callbacks import Unreadable, carries_group_state, command_of, translate
from projector.cli.arguments import whole_number
from projector.cli.output import note, say
from projector.clock import to_rfc3339
from projector.event_store import Candidate
from projector.event_store.quarantine import Quarantined
from projector.settings import Settings


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("quarantine", help="list, show, retry or drop unreadable callbacks")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    list_parser = actions.add_parser("list", help="list quarantined callbacks")
    list_parser.set_defaults(run=_list, needs_database=True)
    show_parser = actions.add_parser("show", help="show a callback with its body")
    show_parser.add_argument("id", type=whole_number(1))
    show_parser.set_defaults(run=_show, needs_database=True)
    retry_parser = actions.add_parser("retry", help="retry parsing, e.g. after an upgrade")
    retry_parser.add_argument("id", type=whole_number(1), nargs="?", help="only this callback")
    retry_parser.set_defaults(run=_retry, needs_database=True)
    drop_parser = actions.add_parser("drop", help="permanently delete callbacks")
    drop_parser.add_argument("ids", type=whole_number(1), nargs="+", metavar="id")
    drop_parser.set_defaults(run=_drop, needs_database=True)


def _list(_: argparse.Namespace, settings: Settings) -> int:
    with _opened(settings, read_only=True) as stores:
        for entry in _waiting(stores):
            say(_line(entry))
    return 0


def _show(options: argparse.Namespace, settings: Settings) -> int:
    with _opened(settings, read_only=True) as stores:
        entry = stores.quarantine.find(options.id)
    if entry is None:
        note(f"projector: no callback {options.id} in the quarantine; see `projector quarantine list`")
        return 1
    say(_line(entry))
    if entry.position:
        say(f"released as the event at position {entry.position}")
    sys.stdout.flush()
    if sys.stdout.isatty():
        say(entry.body.decode(errors="replace"))
    else:
        sys.stdout.buffer.write(entry.body + b"\n")
    return 0


def _drop(options: argparse.Namespace, settings: Settings) -> int:
    with _opened(settings) as stores:
        missing = [quarantine_id for quarantine_id in options.ids if not stores.quarantine.drop(quarantine_id)]
    for quarantine_id in missing:
        note(f"projector: no callback {quarantine_id} in the quarantine; see `projector quarantine list`")
    return 1 if missing else 0


def _retry(options: argparse.Namespace, settings: Settings) -> int:
    """Return 1 if a callback is still unreadable."""
    with _opened(settings) as stores:
        entry = stores.quarantine.find(options.id) if options.id else None
        if options.id and (entry is None or entry.position):
            note(f"projector: callback {options.id} is not waiting in the quarantine")
            return 1
        results = [_retry_entry(stores, waiting) for waiting in ([entry] if entry else _waiting(stores))]
    return 0 if all(results) else 1


def _retry_entry(stores: Stores, entry: Quarantined) -> bool:
    try:
        position = _release(stores, entry)
    except Unreadable as error:
        say(f"{entry.id}  still unreadable: {error}")
        return False
    say(f"{entry.id}  is now the event at position {position}")
    return True


def _release(stores: Stores, entry: Quarantined) -> int:
    """Append the event with its time of receipt; a retry after a crash is a repeat."""
    command = command_of({"callbackcommand": entry.command or ""}, entry.body)
    if not carries_group_state(command):
        raise Unreadable(f"{command} is not recorded")
    translation = translate(command, entry.body, platform=entry.platform, received_at=entry.received_at)
    (appended,) = stores.events.append([Candidate(translation.event, translation.identity or entry.identity)])
    assert appended.position is not None
    stores.quarantine.release(entry.id, appended.position)
    return appended.position


@contextmanager
def _opened(settings: Settings, *, read_only: bool = False) -> Iterator[Stores]:
    stores = open_stores(settings, read_only=read_only)
    with closing(stores.events):
        yield stores


def _waiting(stores: Stores) -> Iterator[Quarantined]:
    after = 0
    while page := stores.quarantine.waiting(after):
        yield from page
        after = page[-1].id


def _line(entry: Quarantined) -> str:
    command = entry.command or "-"
    return f"{entry.id}  {to_rfc3339(entry.received_at)}  {entry.times}x  {command}  {entry.reason}"
