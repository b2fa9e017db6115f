"""What a question about an earlier moment costs: `python -m scripts.bench.past`.

Contenders: the same questions to a group with a thousand events and to one with a million, of 100,000 users who come
and go, at moments spread over all of the group's history.
"""

from __future__ import annotations

import argparse
import http.client
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from scripts.bench.logs import START_MS, Town, write_log
from scripts.bench.rounds import machine, some_cores, table
from scripts.bench.serving import build_read_model, serving

SMALL, LARGE, PEOPLE = 1_000, 1_000_000, 100_000
QUESTIONS = {
    "group": "/v1/groups/{group}?at={at}",
    "group, by position": "/v1/groups/{group}?position={position}",
    "100 members": "/v1/groups/{group}/members?limit=100&at={at}",
    "one member": "/v1/groups/{group}/members/{user}?at={at}",
    "diff of a minute": "/v1/groups/{group}/diff?from={before}&to={at}",
    "a member's history": "/v1/groups/{group}/members/{user}/history",
}


def get(connection: http.client.HTTPConnection, address: str) -> float:
    """Return how long an answer takes, in ms."""
    started = time.perf_counter()
    connection.request("GET", address)
    response = connection.getresponse()
    response.read()
    if response.status not in (200, 404):
        sys.exit(f"{address}: {response.status}")
    return (time.perf_counter() - started) * 1_000


def measure(database: Path, groups: dict[int, tuple[str, int]], count: int) -> None:
    rng, results = random.Random(1), {}
    with serving(f"sqlite:///{database}", cores=some_cores(1)) as served:
        connection = http.client.HTTPConnection(urlsplit(served.url).netloc)
        for question, address in QUESTIONS.items():
            for _ in range(count):
                for size, (group_id, first) in groups.items():
                    at = START_MS + rng.randrange(size) * 19 // 2
                    path = address.format(
                        group=quote(group_id, safe=""),
                        at=at,
                        before=at - 60_000,
                        position=first + rng.randrange(1, size),
                        user=f"user_{rng.randrange(min(PEOPLE, size)) * 7919 % 1_000_003}_0",
                    )
                    results.setdefault((question, size), []).append(get(connection, path))
    rows = []
    for question in QUESTIONS:
        of_small, of_large = results[question, SMALL], results[question, LARGE]
        ratio = statistics.median(of_large) / statistics.median(of_small)
        tenths = statistics.quantiles(of_large, n=100)
        rows.append(
            [
                question,
                f"{statistics.median(of_small):.1f}",
                *(f"{tenths[place - 1]:.1f}" for place in (10, 50, 90, 99)),
                f"{ratio:.1f}",
            ]
        )
    print(f"\n{machine()}; ms, over HTTP, {count} questions each\n")
    head = ["question", f"{SMALL:,} events: p50", f"{LARGE:,} events: p10", "p50", "p90", "p99", "ratio of medians"]
    print(table(head, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where to write the log; default: a temporary folder")
    options = parser.parse_args()
    small, large = Town(1, 1, PEOPLE), Town(1, 2, PEOPLE)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        database = Path(folder, "events.db")
        write_log(database, (small, SMALL), (large, LARGE))
        build_read_model(database)
        measure(database, {SMALL: (small.ids[0], 0), LARGE: (large.ids[0], SMALL)}, options.questions)


if __name__ == "__main__":
    main()
