"""How many callbacks a receiver acknowledges: `python -m scripts.bench.receiving`.

Each contender is a server on one core, loaded from another. PostgreSQL, where there is one, is on the core of the load:
it stands for another machine. Every contender begins each round with an empty database.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.bench import load
from scripts.bench.rounds import keep, machine, median, some_cores, table
from scripts.bench.serving import contender, get, serving
from tests.postgresql import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.bench.serving import Served

NAMES = ("ceiling", "upsert", "stock", "ours", "stock on PostgreSQL", "ours on PostgreSQL")
CONNECTIONS = (32, 256, 1)
MAX_LAG_S = 1.0
_WARM_UP_S = 1.0


@contextlib.contextmanager
def started(name: str, folder: Path, postgresql: PostgreSQL, cores: set[int]) -> Iterator[Served]:
    """Start a contender over an empty database."""
    file = folder / "bench.db"
    server, _, on = name.partition(" on ")
    database = postgresql.new_database() if on else f"sqlite:///{file}"
    if server == "ours":
        spool = {"PROJECTOR_SPOOL_PATH": str(folder / "spool")} if on else {}
        with serving(database, cores=cores, **spool) as served:
            yield served
    else:
        with contender(server, database if on else str(file), cores=cores) as served:
            yield served


def measured(name: str, served: Served, connections: int, seconds: float, cores: set[int]) -> dict[str, Any]:
    """Load a server; exit if it refuses a callback, or its projections lag."""
    before = served.cpu_s()
    results = load.post(served.url, connections=connections, seconds=seconds, cores=cores)
    results["cpu_us"] = (served.cpu_s() - before) / results["requests"] * 1e6
    if name.startswith("ours"):
        results["lag_s"] = lag_s(served)
        if results["lag_s"] > MAX_LAG_S:
            sys.exit(f"{name}: the projections are {results['lag_s']:.1f} s behind, so this is no rate to report")
    return results


def lag_s(served: Served) -> float:
    """Return how long the oldest event that is not projected has waited."""
    metrics = get(f"{served.url}/metrics").decode().splitlines()
    spooled = [float(line.split()[1]) for line in metrics if line.startswith("projector_spool_events ")]
    if any(spooled):
        sys.exit("callbacks went into the spool, so this is no rate to report")
    return next(float(line.split()[1]) for line in metrics if line.startswith("projector_lag_seconds "))


def rounds_of(
    names: list[str], count: int, seconds: float, folder: Path
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    server_core, load_core = ({core} for core in sorted(some_cores(2), reverse=True))
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with postgresql_on(load_core) as postgresql:
        for number in range(count):
            for name in names:
                print(f"round {number + 1} of {count}: {name}", file=sys.stderr, flush=True)
                with (
                    tempfile.TemporaryDirectory(dir=folder) as own,
                    started(name, Path(own), postgresql, server_core) as served,
                ):
                    load.post(served.url, connections=32, seconds=_WARM_UP_S, cores=load_core)
                    for connections in CONNECTIONS:
                        results.setdefault((name, connections), []).append(
                            measured(name, served, connections, seconds, load_core)
                        )
    return results


@contextlib.contextmanager
def postgresql_on(cores: set[int]) -> Iterator[PostgreSQL]:
    """Run a PostgreSQL server that syncs every commit."""
    server = PostgreSQL()
    try:
        server.start("fsync=on", "shared_buffers=256MB", cores=cores)
        yield server
    finally:
        server.remove()


def report(names: list[str], results: dict[tuple[str, int], list[dict[str, Any]]], count: int) -> str:
    head = ["contender", "callbacks/s", ": ceiling", "CPU µs each", "p50 ms", "p99 ms", "p99 : ceiling's"]
    head += ["/s at 256", "/s at 1", "p50 ms at 1"]
    rows = []
    for name in names:
        at = {connections: results[name, connections] for connections in CONNECTIONS}
        ceiling = results.get(("ceiling", 32), at[32])
        rate = median(at[32], "rate")
        rows.append(
            [
                name,
                f"{rate:,.0f}",
                f"{rate / median(ceiling, 'rate'):.2f}",
                f"{median(at[32], 'cpu_us'):.0f}",
                f"{median(at[32], 'p50_ms'):.1f}",
                f"{median(at[32], 'p99_ms'):.1f}",
                f"{median(at[32], 'p99_ms') / median(ceiling, 'p99_ms'):.1f}",
                f"{median(at[256], 'rate'):,.0f}",
                f"{median(at[1], 'rate'):,.0f}",
                f"{median(at[1], 'p50_ms'):.2f}",
            ]
        )
    return f"{machine()}; load: {load.generator()}; medians of {count} rounds, 32 connections unless said\n\n" + table(
        head, rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--names", default=",".join(NAMES), help="contenders, with commas between")
    parser.add_argument("--folder", type=Path, help="where databases are; default: the folder for temporary files")
    parser.add_argument("--results", type=Path, help="a file for all that was measured, as JSON")
    options = parser.parse_args()
    names, started_at = options.names.split(","), time.time()
    results = rounds_of(names, options.rounds, options.seconds, options.folder)
    print(f"\n{report(names, results, options.rounds)}\n\n{time.time() - started_at:.0f} s")
    measured_medians = ("rate", "p50_ms", "p99_ms", "cpu_us")
    keep(
        options.results,
        [
            {"name": name, "connections": at, **{column: median(runs, column) for column in measured_medians}}
            for (name, at), runs in results.items()
        ],
    )


if __name__ == "__main__":
    main()
