"""How long callbacks wait beside the worst that others may ask for: `python -m scripts.bench.delays`.

Callbacks come at a steady rate. In every other round clients send, without a pause, the queries that cost the most, 400
clients wait for positions, and `verify`, `replay` and `forget` run one after the other. Server, load and clients share
all cores.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from scripts.bench import load
from scripts.bench.logs import START_MS, Town, write_log, write_postgres_log
from scripts.bench.receiving import postgresql_on
from scripts.bench.rounds import machine, median, some_cores, table
from scripts.bench.serving import APP_ID, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS, EVENTS, CLIENTS = 1_000, 100_000, 400
CONNECTIONS, PAUSE_MS = 16, 40
QUERIES = (
    "/v1/users/bot/groups?limit=1000&at={at}",
    "/v1/groups/{group}/members?limit=1000",
    "/v1/groups/{group}/diff?from=1&to={at}",
    "/v1/groups/{group}/members?limit=1000&at={at}",
    "/v1/groups?limit=1000&is_full=false&status=active",
    "/v1/events?limit=1000",
)
COMMANDS = (["verify"], ["replay"], ["forget", "--yes", "--unseen", "nobody"], ["forget", "--yes", "--lift", "nobody"])


@contextlib.contextmanager
def in_threads(*works: list) -> Iterator[None]:
    """Run each work in a thread of its own again and again, until the block is left."""
    ended = threading.Event()

    def run(work, *arguments) -> None:
        while not ended.is_set():
            work(*arguments)

    threads = [threading.Thread(target=run, args=work) for work in works]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join()


def ask(url: str, addresses: Iterator[str], sent: list[str]) -> None:
    address = next(addresses)
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc)) as connection:
        connection.request("GET", address)
        response = connection.getresponse()
        response.read()
    if response.status != 200:
        sys.exit(f"{address}: {response.status}")
    sent.append(address)


def wait(url: str) -> None:
    """Have 400 clients wait for a position that is never reached, for two seconds."""
    address = urlsplit(url)
    with contextlib.ExitStack() as clients:
        waiting = [
            clients.enter_context(socket.create_connection((address.hostname, address.port))) for _ in range(CLIENTS)
        ]
        for connection in waiting:
            connection.sendall(b"GET /v1/groups?wait_for=900000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        for connection in waiting:
            connection.recv(65536)


def command(environment: dict[str, str], commands: Iterator[list[str]]) -> None:
    subprocess.run(
        [sys.executable, "-m", "projector", *next(commands)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # "nobody" may be forgotten already
    )


def measure(database: str, settings: dict[str, str], ids: list[str], options: argparse.Namespace) -> list[list[str]]:
    cores, results, sent = some_cores(2), {"alone": [], "beside": []}, []
    environment = {"PROJECTOR_DATABASE_URL": database, "PROJECTOR_SDK_APP_ID": APP_ID, **settings}
    at = itertools.count(START_MS + EVENTS, 37)
    queries = (query.format(group=quote(ids[0], safe=""), at=next(at)) for query in itertools.cycle(QUERIES))
    addresses, commands = iter(locked(queries)), iter(locked(itertools.cycle(COMMANDS)))
    with serving(database, cores=cores, **settings) as served:

        def post() -> dict:
            return load.post(
                served.url, connections=CONNECTIONS, seconds=options.seconds, cores=cores, pause_ms=PAUSE_MS
            )

        post()
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            results["alone"].append(post())
            askers = [(ask, served.url, addresses, sent)] * 4
            with in_threads(*askers, (wait, served.url), (command, environment, commands)):
                results["beside"].append(post())
    print(f"{len(sent)} queries", file=sys.stderr)
    return [
        [name, *(f"{median(runs, column):,.1f}" for column in ("rate", "p50_ms", "p99_ms", "max_ms"))]
        for name, runs in results.items()
    ]


class locked:  # noqa: N801 - it is used like a function
    """An iterator for several threads."""

    def __init__(self, items: Iterator) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __iter__(self) -> locked:
        return self

    def __next__(self):
        with self._lock:
            return next(self._items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    head = ["callbacks", "/s", "p50 ms", "p99 ms", "max ms"]
    with tempfile.TemporaryDirectory() as folder, postgresql_on(some_cores(2)) as postgresql:
        for kind in ("SQLite", "PostgreSQL"):
            file = Path(folder, "bench.db")
            database = f"sqlite:///{file}" if kind == "SQLite" else postgresql.new_database()
            town = Town(GROUPS, 1, bot="bot")
            write = write_log if kind == "SQLite" else write_postgres_log
            write(file if kind == "SQLite" else database, (town, EVENTS))
            settings = {} if kind == "SQLite" else {"PROJECTOR_SPOOL_PATH": str(Path(folder, "spool"))}
            rows = measure(database, settings, town.ids, options)
            print(f"\n{kind}; {machine()}; medians of {options.rounds} rounds\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
