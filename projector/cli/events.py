"""`projector events`: the history as NDJSON."""

from __future__ import annotations

import sys
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec

from projector.bootstrap import open_events
from projector.cli.arguments import whole_number
from projector.event_store import stream
from projector.http.answers import event

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.settings import Settings

_BATCH_SIZE: Final = 1_000


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("events", help="the history as NDJSON")
    parser.add_argument("--after", type=whole_number(0), default=0, metavar="N", help="only events behind position N")
    parser.add_argument("--group", metavar="ID", help="only events of this group")
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print one event a line, in order."""
    with closing(open_events(settings)) as store:
        found = _all(store, options.after) if options.group is None else stream(store, options.group, store.head())
        for recorded in chain.from_iterable(found):
            if recorded.position > options.after:
                sys.stdout.buffer.write(msgspec.json.encode(event(recorded)) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _all(store: EventStore, after: int) -> Iterator[list[Recorded]]:
    while batch := store.read(after, _BATCH_SIZE):
        yield batch
        after = batch[-1].position
