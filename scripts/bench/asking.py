"""What questions cost: `python -m scripts.bench.asking`.

Over a small database, each beside a server that only sends as many bytes; and over a large one, with 100,000 groups,
one of them of 100,000 members, and a million events: the same questions should cost the same. *No two alike* are
questions over the large one of which none can be answered by what was answered before.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from projector.domain.events import Event, GroupCreated
from scripts.bench import load
from scripts.bench.logs import START_MS, Town, write_log
from scripts.bench.rounds import keep, machine, median, some_cores, table
from scripts.bench.serving import Served, build_read_model, contender, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = {"small": 5, "hundred": 100, "thousand": 1_000, "huge": 100_000}
QUESTIONS = {
    "one group": "/v1/groups/hundred",
    "100 members": "/v1/groups/hundred/members?limit=100",
    "1,000 members": "/v1/groups/thousand/members?limit=1000",
    "one group, 304": "/v1/groups/hundred",
    "one member": "/v1/groups/hundred/members/user0000007",
    "a user's groups": "/v1/users/user0000007/groups?limit=3",
    "a page of groups": "/v1/groups?limit=10",
}
OF_HUGE = {"one group": "/v1/groups/huge", "100 members": "/v1/groups/huge/members?limit=100"}


class Groups(Town):
    """The groups that are asked about, and a number of others."""

    def events(self, count: int) -> Iterator[Event]:
        for group_id, size in SIZES.items():
            members = tuple(f"user{number:07}" for number in range(size))
            times = {"occurred_at": START_MS, "recorded_at": START_MS}
            yield GroupCreated(group_id=group_id, **times, group_type="Public", name=group_id, members=members)
        yield from super().events(count)


def sample(served: Served, address: str) -> tuple[int, str]:
    """Return how long an answer is, and its ETag."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc)
    connection.request("GET", address)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        sys.exit(f"{address}: {response.status} {body!r}")
    connection.close()
    return len(body), response.headers["ETag"] or ""


def load_route(served: Served, address: str, etag: str | None, seconds: float, cores: set[int]) -> dict[str, Any]:
    return load.get(served.url, address, etag, connections=32, seconds=seconds, cores=cores)


def measure(
    folder: Path, rounds: int, seconds: float, towns: dict[str, Groups], counts: dict[str, int]
) -> list[dict[str, Any]]:
    server_core, load_core = ({core} for core in sorted(some_cores(2), reverse=True))
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    lengths: dict[str, int] = {}
    for which, town in towns.items():
        database = folder / f"{which}.db"
        print(f"writing the {which} database", file=sys.stderr, flush=True)
        write_log(database, (town, counts[which]))
        build_read_model(database)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for which in towns:
            with serving(f"sqlite:///{folder / which}.db", cores=server_core) as served:
                for question, address in QUESTIONS.items():
                    place = OF_HUGE.get(question, address) if which == "large" else address
                    length, etag = sample(served, quote(place, safe="/?=&"))
                    lengths.setdefault(question, length)
                    results.setdefault((which, question), []).append(
                        load_route(served, place, etag if "304" in question else None, seconds, load_core)
                    )
                    if which == "large":
                        uncached = f"{place}{'&' if '?' in place else '?'}wait_for={load.NUMBER}"
                        results.setdefault(("anew", question), []).append(
                            load_route(served, uncached, None, seconds, load_core)
                        )
        with contender("ceiling", "", cores=server_core) as served:
            for question, length in lengths.items():
                address = "/not-modified" if "304" in question else f"/bytes/{length}"
                results.setdefault(("ceiling", question), []).append(
                    load_route(served, address, '"1"' if "304" in question else None, seconds, load_core)
                )
    head = [
        "question",
        "bytes",
        "ceiling, /s",
        "ours, /s",
        "ours : ceiling",
        "ours over the large database",
        "large : small",
        "no two alike, /s",
        "no two alike : ceiling",
    ]
    rows, kept = [], []
    for question, length in lengths.items():
        ceiling, small, large = (median(results[which, question], "rate") for which in ("ceiling", "small", "large"))
        anew = median(results["anew", question], "rate")
        kept.append({"question": question, "ceiling": ceiling, "small": small, "large": large, "anew": anew})
        rates = [f"{ceiling:,.0f}", f"{small:,.0f}", f"{small / ceiling:.2f}", f"{large:,.0f}", f"{large / small:.2f}"]
        rates += [f"{anew:,.0f}", f"{anew / ceiling:.3f}"]
        rows.append([question, f"{length:,}", *rates])
    print(f"\n{machine()}; load: {load.generator()}; medians of {rounds} rounds, 32 connections\n")
    print(table(head, rows))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--results", type=Path, help="a file for what was measured, as JSON")
    parser.add_argument("--folder", type=Path, help="where to write the logs; default: a temporary folder")
    options = parser.parse_args()
    towns = {"small": Groups(10, 1), "large": Groups(options.groups, 1)}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        kept = measure(Path(folder), options.rounds, options.seconds, towns, {"small": 1_000, "large": options.events})
    keep(options.results, kept)


if __name__ == "__main__":
    main()
