"""How many callbacks a receiver acknowledges: `python -m scripts.bench.receiving`.

Each contender is a server on one core, loaded from another. PostgreSQL, where there is one, is on the core of the load:
it stands for another machine. So are, for `receiver`, all processes of ours but the one that receives callbacks; `ours`
is all of them on one core. Every contender begins each round with an empty database.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.bench import load
from scripts.bench.rounds import keep, machine, median, some_cores, table
from scripts.bench.serving import contender, get, serving
from tests.postgresql import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.bench.serving import Served

NAMES = (
    *("ceiling", "upsert", "stock", "ours", "receiver"),
    *("stock on PostgreSQL", "ours on PostgreSQL", "receiver on PostgreSQL"),
)
LOADS = ((32, 500), (32, 5_000), (256, 5_000), (1, 5_000))
"""Connections, and groups."""

USUAL = (32, 5_000)
_WARM_UP_S = 1.0
_CATCH_UP_S = 60.0
Results = dict[tuple[str, int, int], list[dict[str, Any]]]


class Cores(NamedTuple):
    server: set[int]
    load: set[int]


@contextlib.contextmanager
def started(name: str, folder: Path, postgresql: PostgreSQL, cores: Cores) -> Iterator[Served]:
    """Start a contender over an empty database; yield its process, or that of the receiver."""
    file = folder / "bench.db"
    server, _, on = name.partition(" on ")
    database = postgresql.new_database() if on else f"sqlite:///{file}"
    if server not in ("ours", "receiver"):
        with contender(server, database if on else str(file), cores=cores.server) as served:
            yield served
        return
    spool = {"PROJECTOR_SPOOL_PATH": str(folder / "spool")} if on else {}
    with serving(database, cores=cores.server if server == "ours" else cores.load, **spool) as served:
        if server == "ours":
            yield served
            return
        receiver = served.receiver()
        receiver.move(cores.server)
        yield receiver


def measured(name: str, served: Served, connections: int, groups: int, seconds: float, cores: Cores) -> dict[str, Any]:
    """Load a server; exit if it refuses or spools a callback."""
    before = served.cpu_s()
    results = load.post(served.url, connections=connections, seconds=seconds, groups=groups, cores=cores.load)
    results["cpu_us"] = (served.cpu_s() - before) / results["requests"] * 1e6
    results["lag_s"] = lag_s(served) if name.startswith(("ours", "receiver")) else 0.0
    return results


def lag_s(served: Served) -> float:
    """Return how long the oldest event that is not projected has waited, and wait until all are projected."""
    until, lags = time.monotonic() + _CATCH_UP_S, [metric(served, "projector_lag_seconds")]
    if metric(served, "projector_spool_events"):
        sys.exit("callbacks went into the spool, so this is no rate to report")
    while lags[-1] and time.monotonic() < until:
        lags.append(metric(served, "projector_lag_seconds"))
    return lags[0]


def metric(served: Served, name: str) -> float:
    """Return the value of a metric without labels, 0 if there is none."""
    lines = get(f"{served.url}/metrics").decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def rounds_of(names: list[str], count: int, seconds: float, folder: Path) -> Results:
    cores = Cores(*({core} for core in sorted(some_cores(2), reverse=True)))
    results: Results = {}
    with postgresql_on(cores.load) as postgresql:
        for number in range(count):
            for name in names:
                print(f"round {number + 1} of {count}: {name}", file=sys.stderr, flush=True)
                with (
                    tempfile.TemporaryDirectory(dir=folder) as own,
                    started(name, Path(own), postgresql, cores) as served,
                ):
                    load.post(served.url, connections=32, seconds=_WARM_UP_S, cores=cores.load)
                    for connections, groups in LOADS:
                        result = measured(name, served, connections, groups, seconds, cores)
                        results.setdefault((name, connections, groups), []).append(result)
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


def report(names: list[str], results: Results, options: argparse.Namespace) -> str:
    head = ["contender", "callbacks/s", "with 500 groups", "CPU µs each", "with 500 groups", "p50 ms", "p99 ms"]
    head += ["/s at 256", "/s at 1", "p50 ms at 1", "lag s"]
    rows = []
    for name in names:
        few, usual, many, single = (results[name, *at] for at in LOADS)
        cells = [f"{median(at, 'rate'):,.0f}" for at in (usual, few)]
        cells += [f"{median(at, 'cpu_us'):.0f}" for at in (usual, few)]
        cells += [f"{median(usual, 'p50_ms'):.1f}", f"{median(usual, 'p99_ms'):.1f}"]
        cells += [f"{median(many, 'rate'):,.0f}", f"{median(single, 'rate'):,.0f}", f"{median(single, 'p50_ms'):.2f}"]
        rows.append([name, *cells, f"{median(usual, 'lag_s'):.1f}"])
    about = f"{machine(options.folder)}; load: {load.generator()}; medians of {options.rounds} rounds"
    about += ", 32 connections and 5,000 groups unless said"
    return f"{about}\n\n{table(head, rows)}\n\n{ratios(results)}"


RATIOS = (
    ("receiver", "ceiling", "cpu_us", "≤ 1.5"),
    ("receiver", "ceiling", "rate", "≥ 0.65"),
    ("receiver", "upsert", "rate", "≥ 1.7"),
    ("receiver", "stock", "rate", "≥ 15"),
    ("receiver on PostgreSQL", "receiver", "rate", "≥ 0.8"),
    ("ours", "ceiling", "rate", "≥ 0.35"),
)


def ratios(results: Results) -> str:
    """Return the ratios of medians that have goals, of the contenders that were measured."""
    rows = []
    for one, other, column, goal in RATIOS:
        if (one, *USUAL) in results and (other, *USUAL) in results:
            values = [median(results[one, *at], column) / median(results[other, *at], column) for at in LOADS[:2]]
            what = "CPU time" if column == "cpu_us" else "callbacks/s"
            rows.append([f"{one} ÷ {other}, {what}", goal, *(f"{value:.2f}" for value in reversed(values))])
    return table(["ratio", "goal", "5,000 groups", "500 groups"], rows)


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
    print(f"\n{report(names, results, options)}\n\n{time.time() - started_at:.0f} s")
    measured_medians = ("rate", "p50_ms", "p99_ms", "cpu_us", "lag_s")
    keep(
        options.results,
        [
            {"name": name, "connections": at, "groups": groups}
            | {column: median(runs, column) for column in measured_medians}
            for (name, at, groups), runs in results.items()
        ],
    )


if __name__ == "__main__":
    main()
