"""`projector status`: positions, lag and counts, whether or not a server is running."""

from __future__ import annotations

import argparse
from contextlib import closing

import msgspec

from projector.bootstrap import check_stores, open_generations, open_queries, open_stores
from projector.cli.output import say
from projector.event_store.spool import SpoolStatus, spool_status
from projector.read_model import NoReadModel, Queries
from projector.read_model.query_session import Counts
from projector.settings import Settings
from projector.status import Status, status_of


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("status", help="show positions, lag, counts and the quarantine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print the status; return 1 if the read model is not correct and current."""
    stores = open_stores(settings, read_only=True)
    with closing(stores.events), closing(open_queries(settings)) as queries:
        health, counts = check_stores(stores, queries), _counts(queries)
    spool = spool_status(settings.spool_path) if settings.spool_path else SpoolStatus(0, 0)
    status = status_of(health, counts, spool, open_generations(settings).rebuild_progress())
    for line in [msgspec.json.encode(status).decode()] if options.json else _lines(status):
        say(line)
    return 1 if status.complaints else 0


def _counts(queries: Queries) -> Counts:
    try:
        with queries.session() as session:
            return session.counts()
    except NoReadModel:
        return Counts(0, 0, 0, 0)


def _lines(status: Status) -> list[str]:
    lines = [f"events        {status.head}"]
    lines += [
        f"{name:<13} at {projection.position}, {projection.lag_events} behind, {projection.set_aside} set aside"
        for name, projection in status.projections.items()
    ]
    lines.append(f"lag           {status.lag_seconds:.1f} s")
    lines += [f"{name.replace('_', ' '):<13} {count}" for name, count in status.counts.items()]
    lines.append(f"quarantine    {status.quarantine}")
    if status.spool.events:
        lines.append(f"spool         {status.spool.events} events, the oldest for {status.spool.seconds:.0f} s")
    if status.spool.set_aside:
        lines.append(f"spool         {status.spool.set_aside} set aside")
    if status.unfinished_forgettings:
        lines.append(f"forgetting    {status.unfinished_forgettings} users, in progress or interrupted")
    if status.replay:
        progress = f", {status.replay.done} of {status.replay.total} events" if status.replay.total else ""
        lines.append(f"replay        in progress: {status.replay.phase}{progress}")
    return [*lines, *status.complaints]
