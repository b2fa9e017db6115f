"""How fast a read model is rebuilt: `python -m scripts.bench.rebuild`.

Contenders: ours on one core, ours on two, and the event-sourcing library's own projection, one transaction per event.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from eventsourcing.persistence import JSONTranscoder, Tracking
from eventsourcing.projection import Projection
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore, SQLiteTrackingRecorder

from projector.bootstrap import PROJECTIONS, open_events, open_generations
from projector.database.sqlite import SQLiteConnection
from projector.domain.events import Recorded
from projector.event_store.mapper import EventMapper
from projector.projection.slices import slice_streams
from projector.read_model.generation_files import live_path
from projector.read_model.sql_tables import SQLTables
from projector.read_model.sqlite import SQLiteDraft
from projector.replay.build import Jobs
from projector.replay.replay import Replay
from projector.settings import Settings
from scripts.bench.logs import Town, write_log
from scripts.bench.rounds import SEED, keep, machine, median, run, some_cores, table

MODULE = "scripts.bench.rebuild"


STOCK_EVENTS = 10_000
"""The stock projection is given no more: its cost per event does not depend on it."""


def ours(path: Path, processes: int) -> dict[str, Any]:
    settings = Settings(database_path=str(path))
    for file in path.parent.glob(f"{path.name}.read-model*"):
        file.unlink()
    store = open_events(settings)
    events = store.head()
    started = time.perf_counter()
    jobs = Jobs(processes, partial(open_events, settings))
    Replay(store, open_generations(settings), PROJECTIONS, jobs=jobs).rebuild_if_needed()
    seconds = time.perf_counter() - started
    store.close()
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    with sqlite3.connect(live_path(f"{path}.read-model")) as connection:
        (members,) = connection.execute("SELECT COUNT(*) FROM members").fetchone()
    connection.close()
    return {"rate": events / seconds, "rss_mb": most / 1024, "members": members}


class StockView(SQLiteTrackingRecorder):
    """The same tables, and the position, in one transaction per event, as the library's documentation has it."""

    def apply(self, recorded: Recorded, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            tables = SQLTables(SQLiteConnection(cursor.sqlite_cursor.connection))
            for projection in PROJECTIONS:
                projection.apply(tables, slice_streams([recorded]))


class StockProjection(Projection[StockView]):
    """Gives the same rows as ours, event by event."""

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        self.view.apply(domain_event, tracking)


def stock(path: Path) -> dict[str, Any]:
    events = SQLiteApplicationRecorder(SQLiteDatastore(str(path), originator_id_type="text"))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        SQLiteDraft.create(file := str(Path(folder, "view.db")), {}, 0).finish()
        view = StockView(SQLiteDatastore(file))
        view.create_table()
        projection, mapper, position = StockProjection(view), EventMapper(JSONTranscoder()), 0
        started = time.perf_counter()
        while position < STOCK_EVENTS:
            for notification in events.select_notifications(position + 1, 100):
                position = notification.id
                event = Recorded(position, mapper.to_domain_event(notification), notification.originator_version)
                projection.process_event(event, Tracking("app", position))
        seconds = time.perf_counter() - started
        view.datastore.close()
    events.datastore.close()
    return {"rate": position / seconds}


def compare(folder: Path, lengths: list[int], groups: int, rounds: int) -> list[dict[str, Any]]:
    single, double = some_cores(1), some_cores(2)
    for length in lengths:
        print(f"writing {length} events over {groups} groups", file=sys.stderr, flush=True)
        write_log(folder / f"{length}.db", (Town(groups, SEED), length))
    results: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for length in lengths:
            path = str(folder / f"{length}.db")
            results.setdefault((length, "one"), []).append(run(MODULE, "--one", path, "1", cores=single))
            results.setdefault((length, "two"), []).append(run(MODULE, "--one", path, "2", cores=double))
            results.setdefault((length, "stock"), []).append(run(MODULE, "--stock", path, cores=single))
    head = ["events", "memberships", "events/s, 1 core", "2 cores", "ratio", "stock", "ours : stock"]
    head += [f"cost per event : at {lengths[0]:,}", "RSS, MB, at most"]
    print(f"\n{machine()}; medians of {rounds} rounds\n")
    print(table(head, [_row(length, lengths[0], results) for length in lengths]))
    names = ("one", "two", "stock")
    return [{"events": length} | {name: median(results[length, name], "rate") for name in names} for length in lengths]


def _row(length: int, first: int, results: dict[tuple[int, str], list[dict[str, Any]]]) -> list[str]:
    single, double, library = (median(results[length, name], "rate") for name in ("one", "two", "stock"))
    ours_of_both = results[length, "one"] + results[length, "two"]
    return [
        f"{length:,}",
        f"{ours_of_both[0]['members']:,}",
        f"{single:,.0f}",
        f"{double:,.0f}",
        f"{double / single:.2f}",
        f"{library:,.0f}",
        f"{single / library:.0f}",
        f"{median(results[first, 'one'], 'rate') / single:.2f}",
        f"{max(result['rss_mb'] for result in ours_of_both):.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default="300000,1000000,3000000", help="lengths of logs, with commas between")
    parser.add_argument("--groups", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="a file for what was measured, as JSON")
    parser.add_argument("--folder", type=Path, help="where to write the logs; default: a temporary folder")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--stock", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(ours(Path(options.one[0]), int(options.one[1]))))
    elif options.stock:
        print(json.dumps(stock(options.stock)))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            lengths = [int(length) for length in options.events.split(",")]
            keep(options.results, compare(Path(folder), lengths, options.groups, options.rounds))


if __name__ == "__main__":
    main()
