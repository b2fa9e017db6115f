"""`projector events`: the history as NDJSON."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from typing import Final

import msgspec

from projector.bootstrap import open_events
from projector.cli.arguments import whole_number
from projector.cli.output import note, say
from projector.event_store.reading import group_history, history
from projector.http.answers import event
from projector.settings import Settings

_BATCH_SIZE: Final = 1_000


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("events", help="print the history as NDJSON")
    parser.add_argument("--after", type=whole_number(0), default=0, metavar="N", help="only events after position N")
    parser.add_argument("--group", metavar="ID", help="only events of this group")
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print an event per line, in order; return 1 if there are no events for the group."""
    with closing(open_events(settings, read_only=True)) as store:
        if options.group is None:
            events = history(store, options.after, _BATCH_SIZE)
        else:
            if not store.read_group(options.group, 0, 1):
                note(f"projector: no events for group {options.group}")
                return 1
            of_group = group_history(store, options.group, 0, _BATCH_SIZE)
            events = (recorded for recorded in of_group if recorded.position > options.after)
        for recorded in events:
            # Line breaks can only be between the tokens of a body: in its strings they are escaped.
            line = msgspec.json.encode(event(recorded)).replace(b"\r", b" ").replace(b"\n", b" ")
            say(line.decode())
    sys.stdout.flush()
    return 0
