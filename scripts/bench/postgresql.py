"""What PostgreSQL takes: `python -m scripts.bench.postgresql`.

Appended events/s with 1, 2 and 4 receivers, each a process, in batches as group commit makes them; then how fast a read
model is rebuilt. The server, which syncs every commit, and the processes share all cores. For callbacks over HTTP see
`receiving`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from typing import Any

import psycopg

from projector.bootstrap import PROJECTIONS, open_events, open_generations
from projector.callbacks import translate
from projector.database.postgres_server import PostgresServer
from projector.event_store import Candidate
from projector.event_store.postgres import open_postgres
from projector.replay.build import Jobs
from projector.replay.replay import Replay
from projector.settings import Settings
from scripts.bench.load import GROUPS, callback
from scripts.bench.logs import Town, write_postgres_log
from scripts.bench.receiving import postgresql_on
from scripts.bench.rounds import machine, median, some_cores, table

MODULE = "scripts.bench.postgresql"
RECEIVERS = (1, 2, 4)
BATCHES = (32, 256)


def append(url: str, first: int, size: int, seconds: float) -> int:
    """Append batches, beginning when stdin says so; return how many events went in."""
    store, _ = open_postgres(PostgresServer(url), {}, max_quarantined=1, pool_size=5)
    number, appended = first, 0
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        batch = [_candidate(number + place) for place in range(size)]
        number += size
        store.append(batch)
        appended += size
    store.close()
    return appended


def _candidate(number: int) -> Candidate:
    command, body = callback(number, GROUPS)
    translation = translate(command, body, platform=None, received_at=2_000_000_000_000)
    return Candidate(translation.event, translation.identity)


def appended_together(url: str, receivers: int, size: int, seconds: float) -> float:
    """Return the events per second of so many processes."""
    command = [sys.executable, "-m", MODULE, "--append", url, str(size), str(seconds)]
    processes = [
        subprocess.Popen(
            [*command, str((number + 1) * 10_000_000)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(receivers)
    ]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(json.loads(process.communicate()[0]) for process in processes) / seconds


def rebuilt(url: str, events: int, processes: int) -> float:
    """Return the events per second of building a read model where there is none."""
    settings = Settings(postgres_url=url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS public.read_models")
    store, started = open_events(settings), time.perf_counter()
    jobs = Jobs(processes, partial(open_events, settings))
    Replay(store, open_generations(settings), PROJECTIONS, jobs=jobs).rebuild_if_needed()
    seconds = time.perf_counter() - started
    store.close()
    return events / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--events", type=int, default=1_000_000, help="length of the log that is rebuilt")
    parser.add_argument("--append", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.append:
        url, size, seconds, first = options.append
        print(append(url, int(first), int(size), float(seconds)))
        return
    appends: dict[tuple[int, int], list[dict[str, Any]]] = {}
    rebuilds: dict[int, list[dict[str, Any]]] = {}
    with postgresql_on(some_cores(2)) as postgresql:
        log = postgresql.new_database()
        write_postgres_log(log, (Town(5_000, 1), options.events))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for receivers in RECEIVERS:
                for size in BATCHES:
                    rate = appended_together(postgresql.new_database(), receivers, size, options.seconds)
                    appends.setdefault((receivers, size), []).append({"rate": rate})
            for processes in (1, 2):
                rebuilds.setdefault(processes, []).append({"rate": rebuilt(log, options.events, processes)})
    print(f"\n{machine()}; medians of {options.rounds} rounds\n")
    rows = [[str(count), *(f"{median(appends[count, size], 'rate'):,.0f}" for size in BATCHES)] for count in RECEIVERS]
    print(table(["receivers", *(f"appended events/s, batches of {size}" for size in BATCHES)], rows))
    single, double = (median(rebuilds[processes], "rate") for processes in (1, 2))
    row = [f"{options.events:,}", f"{single:,.0f}", f"{double:,.0f}"]
    print("\n" + table(["events", "rebuilt events/s, 1 process", "2 processes"], [row]))


if __name__ == "__main__":
    main()
