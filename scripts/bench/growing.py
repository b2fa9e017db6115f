"""What a long history costs: `python -m scripts.bench.growing`.

A group with a million events beside an empty one, appended to in turns; a server started on a log of three million
events, until it is ready; and what that server takes while nothing happens.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import urllib.error
from pathlib import Path
from typing import TYPE_CHECKING

from projector.domain.events import MembersJoined
from projector.event_store import Candidate
from projector.event_store.sqlite import open_sqlite
from scripts.bench.logs import Town, write_log
from scripts.bench.rounds import machine, median, some_cores, table
from scripts.bench.serving import build_read_model, get, serving

if TYPE_CHECKING:
    from projector.event_store import EventStore

BATCH = 32
_IDLE_S = 10.0


def append(store: EventStore, group_id: str, number: int) -> float:
    """Append a batch to a group, and return the ms that it took."""
    batch = [
        Candidate(
            MembersJoined(
                group_id=group_id, occurred_at=number, recorded_at=number, members=(f"user{number + place}",)
            ),
            random.randbytes(16),
        )
        for place in range(BATCH)
    ]
    started = time.perf_counter()
    store.append(batch)
    return (time.perf_counter() - started) * 1_000


def appends(database: Path, huge: str, batches: int) -> list[str]:
    store, _ = open_sqlite(str(database), {}, max_quarantined=1)
    results: dict[str, list[dict[str, float]]] = {huge: [], "empty": []}
    for number in range(batches):
        for group_id, taken in results.items():
            taken.append({"ms": append(store, group_id, number * BATCH)})
    store.close()
    of_huge, of_empty = (median(taken, "ms") for taken in results.values())
    return [f"{of_empty:.2f}", f"{of_huge:.2f}", f"{of_huge / of_empty:.2f}"]


def start_up(database: Path, rounds: int) -> list[str]:
    """Return the seconds until a server is ready, in the middle; its MB, and its share of a core while idle."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        with serving(f"sqlite:///{database}", cores=some_cores(1)) as served:
            while not _is_ready(served.url):
                time.sleep(0.01)
            seconds.append({"seconds": time.perf_counter() - started})
    with serving(f"sqlite:///{database}", cores=some_cores(1)) as served:
        while not _is_ready(served.url):
            time.sleep(0.1)
        time.sleep(1)
        before = served.cpu_s()
        time.sleep(_IDLE_S)
        idle = (served.cpu_s() - before) / _IDLE_S
        return [f"{median(seconds, 'seconds'):.2f}", f"{served.rss_mb():.0f}", f"{idle * 100:.1f} %"]


def _is_ready(url: str) -> bool:
    try:
        return bool(get(f"{url}/readyz"))
    except urllib.error.HTTPError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--events", type=int, default=2_000_000, help="events beside the million of one group")
    parser.add_argument("--folder", type=Path, help="where to write the log; default: a temporary folder")
    options = parser.parse_args()
    huge, others = Town(1, 1, 100_000), Town(5_000, 2)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        database = Path(folder, "events.db")
        print("writing the log", file=sys.stderr, flush=True)
        write_log(database, (huge, 1_000_000), (others, options.events))
        build_read_model(database)
        started = start_up(database, options.rounds)
        appended = appends(database, huge.ids[0], options.batches)
    print(f"\n{machine()}; a log of {1_000_000 + options.events:,} events\n")
    print(table(["ms to append 32 events to an empty group", "to one of 1,000,000 events", "ratio"], [appended]))
    print("\n" + table(["s from start to ready", "idle: MB", "idle: CPU"], [started]))


if __name__ == "__main__":
    main()
