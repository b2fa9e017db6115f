"""What projecting costs beside the SQL it ends in: `python -m scripts.bench.projecting`.

*ours* projects a log live, in batches of 64 events, each a transaction; *bare SQL* writes the same rows in the same
transactions, and neither reads nor decides anything. Both are measured in CPU time, on one core, in turns.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projector.bootstrap import PROJECTIONS, open_events, open_generations
from projector.database.sqlite import SQLiteConnection
from projector.settings import Settings
from projector.subscription import Subscription
from scripts.bench.logs import Town, write_log
from scripts.bench.rounds import machine, median, run, some_cores, table

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "scripts.bench.projecting"
BATCH_SIZE = 64
SEED = 1

Write = tuple[str, list[Any]]
"""A statement, and the rows it is executed with."""


def project(path: Path, after: int, through: int, on_commit: Callable[[], None] = lambda: None) -> float:
    """Bring a read model to `after`, then project live to `through`; return the seconds of CPU for that."""
    settings = Settings(database_path=str(path))
    with closing(open_events(settings)) as store:
        generations = open_generations(settings)
        read_model = generations.live()
        Subscription(store, read_model, PROJECTIONS).catch_up(through=after)
        subscription = Subscription(store, read_model, PROJECTIONS, batch_size=BATCH_SIZE)
        on_commit()
        started = time.process_time()
        subscription.catch_up(through=through, on_progress=lambda _: on_commit())
        seconds = time.process_time() - started
        read_model.close()
    return seconds


def begin(path: Path) -> Path:
    """Make an empty read model live; return its file."""
    settings = Settings(database_path=str(path))
    for file in path.parent.glob(f"{path.name}.*"):
        file.unlink()
    versions = {projection.name: projection.version for projection in PROJECTIONS}
    with open_generations(settings).begin_rebuild() as generation:
        generation.create(versions, 0).finish()
        generation.promote()
    (file,) = {link.resolve() for link in path.parent.glob(f"{path.name}.read-model*") if link.is_symlink()}
    return file


def recorded(path: Path, after: int, through: int) -> list[list[Write]]:
    """Project, and return the writes of each transaction; those before `after` are the first."""
    transactions: list[list[Write]] = [[]]
    write = SQLiteConnection.write

    def record(self: SQLiteConnection, statement: str, rows: list[Any]) -> None:
        transactions[-1].append((statement, rows := list(rows)))
        write(self, statement, rows)

    SQLiteConnection.write = record  # type: ignore[method-assign]
    try:
        project(path, after, through, on_commit=lambda: transactions.append([]))
    finally:
        SQLiteConnection.write = write  # type: ignore[method-assign]
    return transactions


def bare(file: Path, transactions: list[list[Write]]) -> float:
    """Write rows as they were recorded; return the seconds of CPU, without those of the first transaction."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for pragma in ("synchronous=NORMAL", "cache_size=-16000", "wal_autocheckpoint=4000"):
            connection.execute(f"PRAGMA {pragma}")
        started = 0.0
        for number, writes in enumerate(transactions):
            connection.execute("BEGIN IMMEDIATE")
            for statement, rows in writes:
                connection.executemany(statement, rows)
            connection.execute("COMMIT")
            started = started if number else time.process_time()
        return time.process_time() - started


def measure(path: Path, after: int, through: int) -> dict[str, float]:
    begin(path)
    seconds = project(path, after, through)
    begin(path)
    transactions = recorded(path, after, through)
    seconds_bare = bare(begin(path), transactions)
    rows = sum(len(rows) for writes in transactions[1:] for _, rows in writes)
    events = through - after
    return {"ours_us": seconds / events * 1e6, "bare_us": seconds_bare / events * 1e6, "rows": rows / events}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", default="500,5000", help="numbers of groups, with a comma between")
    parser.add_argument("--after", type=int, default=50_000, help="events projected before")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    through = options.after + options.events
    if options.one:
        print(json.dumps(measure(options.one, options.after, through)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for groups in map(int, options.groups.split(",")):
            write_log(path := Path(folder, f"{groups}.db"), (Town(groups, SEED), through))
            arguments = ("--one", str(path), "--after", str(options.after), "--events", str(options.events))
            results = [run(MODULE, *arguments, cores=some_cores(1)) for _ in range(options.rounds)]
            print(f"{groups} groups done", file=sys.stderr, flush=True)
            ours, sql = median(results, "ours_us"), median(results, "bare_us")
            ratio = median([{"ratio": result["ours_us"] / result["bare_us"]} for result in results], "ratio")
            rows.append([f"{groups:,}", f"{results[0]['rows']:.1f}", f"{sql:.1f}", f"{ours:.1f}", f"{ratio:.2f}"])
    print(f"\n{machine()}; medians of {options.rounds} rounds, seed {SEED}, batches of {BATCH_SIZE}\n")
    print(table(["groups", "rows per event", "bare SQL, µs of CPU", "ours", "ours : bare SQL"], rows))


if __name__ == "__main__":
    main()
