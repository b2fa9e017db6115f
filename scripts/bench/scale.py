"""What twenty times as many events cost: `python -m scripts.bench.scale`, a campaign of about two hours.

On SQLite and on PostgreSQL, a log of a million events and one of twenty million, with a hundred events per group: to
rebuild the read model from it, to start a server on it, to append to it, and to ask about groups, now and earlier.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from projector.bootstrap import open_events
from projector.settings import read_settings
from scripts.bench.growing import append
from scripts.bench.logs import START_MS, Town, write_log, write_postgres_log
from scripts.bench.past import get
from scripts.bench.receiving import postgresql_on
from scripts.bench.rounds import keep, machine, some_cores, table
from scripts.bench.serving import APP_ID, serving

if TYPE_CHECKING:
    from tests.postgresql import PostgreSQL

EVENTS_PER_GROUP = 100
QUERIES = {
    "a group": "/v1/groups/{group}",
    "100 members": "/v1/groups/{group}/members?limit=100",
    "a page of groups": "/v1/groups?limit=100",
    "members at=": "/v1/groups/{group}/members?limit=100&at={at}",
    "a user's groups": "/v1/users/{user}/groups",
}
_TIMED = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True);"
_TIMED += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"


def rebuilt(environment: dict[str, str], events: int) -> dict[str, float]:
    """Rebuild from nothing with one process; return events a second, and MB at most."""
    command = [sys.executable, "-c", _TIMED, sys.executable, "-m", "projector", "replay", "--jobs", "1"]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    return {"rebuild, events/s": events / seconds, "rebuild, MB": int(done.stdout.split()[-1]) / 1024}


def appended(environment: dict[str, str], town: Town) -> dict[str, float]:
    rng = random.Random(1)
    with closing(open_events(read_settings(environment))) as store:
        taken = sorted(append(store, rng.choice(town.ids), START_MS * 2 + number * 32) for number in range(300))
    return {"append 32, ms": taken[len(taken) // 2]}


def asked(database: str, environment: dict[str, str], town: Town, events: int) -> dict[str, float]:
    rng, results = random.Random(2), {}
    settings = {name: value for name, value in environment.items() if name.startswith("PROJECTOR_SPOOL")}
    started = time.perf_counter()
    with serving(database, cores=some_cores(2), **settings) as served:
        connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=600)
        get(connection, "/v1/groups?limit=1")
        results["start, s"] = time.perf_counter() - started
        for name, address in QUERIES.items():
            taken = []
            for _ in range(300):
                group = rng.randrange(len(town.ids))
                path = address.format(
                    group=quote(town.ids[group], safe=""),
                    at=START_MS + rng.randrange(events * 10),
                    user=f"user_0_{group}",
                )
                taken.append(get(connection, path))
            results[f"{name}, ms"] = sorted(taken)[len(taken) // 2]
        results["serve, MB"] = served.pss_mb()
    return results


def measured(kind: str, events: int, folder: Path, postgresql: PostgreSQL) -> dict[str, float]:
    town, file = Town(events // EVENTS_PER_GROUP, 1), folder / f"{events}.db"
    database = f"sqlite:///{file}" if kind == "SQLite" else postgresql.new_database()
    print(f"{kind}: writing {events:,} events", file=sys.stderr, flush=True)
    if kind == "SQLite":
        write_log(file, (town, events))
    else:
        write_postgres_log(database, (town, events))
    environment = {"PROJECTOR_DATABASE_URL": database, "PROJECTOR_SDK_APP_ID": APP_ID, "PATH": "/usr/bin:/bin"}
    environment["PROJECTOR_SPOOL_PATH"] = str(folder / f"{events}.spool")
    print("rebuilding", file=sys.stderr, flush=True)
    results = rebuilt(environment, events)
    print("asking", file=sys.stderr, flush=True)
    results |= asked(database, environment, town, events)
    return results | appended(environment, town)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default="1000000,20000000", help="two numbers of events, with a comma between")
    parser.add_argument("--kinds", default="SQLite,PostgreSQL")
    parser.add_argument("--folder", type=Path, help="where the databases are; default: a temporary folder")
    parser.add_argument("--results", type=Path, help="a file for what was measured, as JSON")
    options = parser.parse_args()
    small, large = map(int, options.events.split(","))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, postgresql_on(some_cores(2)) as postgresql:
        for kind in options.kinds.split(","):
            of_small, of_large = (measured(kind, events, Path(folder), postgresql) for events in (small, large))
            rows.append({"kind": kind, "small": of_small, "large": of_large})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            head = [kind, f"{small:,}", f"{large:,}", "large : small"]
            lines = [
                [name, *(f"{of[name]:,.2f}" for of in (of_small, of_large)), _ratio(name, rows[-1])]
                for name in of_small
            ]
            print(f"\n{machine()}\n\n{table(head, lines)}", flush=True)
    keep(options.results, rows)


def _ratio(name: str, row: dict[str, Any]) -> str:
    return f"{row['large'][name] / row['small'][name]:.2f}"


if __name__ == "__main__":
    main()
