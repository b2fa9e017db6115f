"""`projector status`: how far everything is, whether or not a server runs."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from projector.bootstrap import look_at, open_generations, open_queries, open_stores
from projector.event_store.spool import SpoolStatus, spool_status
from projector.read_model import NoReadModel
from projector.read_model.query_session import Counts

if TYPE_CHECKING:
    import argparse

    from projector.read_model import Queries
    from projector.settings import Settings


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("status", help="positions, lag, counts, quarantine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print the status and return 1 if something keeps the projections from being right and recent."""
    stores = open_stores(settings)
    with closing(stores.events), closing(open_queries(settings)) as queries:
        health, counts = look_at(stores, queries), _counts(queries)
    building = open_generations(settings).rebuild_progress()
    complaints = health.complaints()
    spooled = spool_status(settings.spool_path) if settings.spool_path else SpoolStatus(0, 0)
    status = {
        "head": health.head,
        "projections": {
            name: {
                "position": position,
                "lag_events": health.head - position,
                "set_aside": sum(note.projection == name for note in health.notes),
            }
            for name, position in sorted(health.positions.items())
        },
        "lag_seconds": health.lag_ms / 1000,
        "counts": counts._asdict(),
        "quarantine": health.quarantined,
        "spool": {"events": spooled.depth, "seconds": spooled.age_s()},
        "set_aside": [note._asdict() for note in health.notes],
        "replay": building._asdict() if building else None,
        "complaints": complaints,
    }
    sys.stdout.write(msgspec.json.encode(status).decode() + "\n" if options.json else _for_people(status))
    return 1 if complaints else 0


def _counts(queries: Queries) -> Counts:
    try:
        with queries.session() as session:
            return session.counts()
    except NoReadModel:
        return Counts(0, 0, 0, 0)


def _for_people(status: dict[str, object]) -> str:
    seen = msgspec.convert(status, _Status)
    lines = [f"events        {seen.head}"]
    lines += [
        f"{name:<13} at {its['position']}, {its['lag_events']} behind, {its['set_aside']} set aside"
        for name, its in seen.projections.items()
    ]
    lines.append(f"lag           {seen.lag_seconds:.1f} s")
    lines += [f"{name.replace('_', ' '):<13} {count}" for name, count in seen.counts.items()]
    lines.append(f"quarantine    {seen.quarantine}")
    if seen.spool["events"]:
        lines.append("spool         {events:.0f} events, the oldest for {seconds:.0f} s".format(**seen.spool))
    if seen.replay:
        far = ", {done} of {total} events" if seen.replay["total"] else ""
        lines.append(f"replay        under way: {{phase}}{far}".format(**seen.replay))
    return "\n".join([*lines, *seen.complaints, ""])


class _Status(msgspec.Struct):
    head: int
    projections: dict[str, dict[str, int]]
    lag_seconds: float
    counts: dict[str, int]
    quarantine: int
    spool: dict[str, float]
    replay: dict[str, Any] | None
    complaints: list[str]
