"""Mixed traffic at the highest rate that is sustained, for as long as one likes: `python -m scripts.soak --minutes 20`.

Callbacks come over 32 connections as fast as they are answered; meanwhile others ask, repeat, send rubbish and bodies
that are too large, and begin requests that they do not end. Every second it is noted how much memory the server has,
how far the projections are behind, and how far the history has come. At the end the history is verified.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx2

from scripts.bench import load
from scripts.bench.rounds import machine, some_cores
from scripts.bench.serving import APP_ID, Served, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEGMENT_S = 20
MAX_RSS_MB = 200
PAUSE_S = 0.05
ALL_THERE = 10_000
"""Of so many events every group has some, in their first half too."""

TARGET = f"/callback?SdkAppid={APP_ID}&CallbackCommand="
MESSAGE = "Group.CallbackAfterSendMsg"
FULL = "Group.CallbackAfterGroupFull"


def questions(rng: random.Random, head: int) -> str:
    group = f"/v1/groups/{quote(f'@TGS#bench{rng.randrange(load.GROUPS)}', safe='')}"
    return rng.choice(
        [
            group,
            f"{group}/members?limit=1000",
            f"{group}?position={rng.randrange(head // 2, head + 1)}",
            f"{group}/events?limit=100",
            f"/v1/groups?limit=100&q=@TGS%23bench{rng.randrange(10)}",
            f"/v1/users/user{rng.randrange(1, head + 1)}/groups",
            f"/v1/events?after={rng.randrange(head + 1)}&limit=100",
            "/metrics",
        ]
    )


def query(client: httpx2.Client, rng: random.Random, head: int) -> str:
    """Send a query, sometimes about an unknown user."""
    if head < ALL_THERE:
        return ""
    question = questions(rng, head)
    status = client.get(question).status_code
    return "" if status == 200 or (status == 404 and "/users/" in question) else f"{status} for {question}"


def send_garbage(client: httpx2.Client, rng: random.Random, _: int) -> str:
    """Send requests that are not group state callbacks."""
    command, body, due = rng.choice(
        [
            (MESSAGE, json.dumps({"CallbackCommand": MESSAGE, "MsgBody": "x" * 500}).encode(), 200),
            (FULL, b"rubbish %d" % rng.randrange(100), 400),
            (FULL, b"[" * 10_000, 400),
            (FULL, b"x" * 1_100_000, 413),
            ("", b"{}", 400),
        ]
    )
    status = client.post(f"{TARGET}{command}", content=body).status_code
    return "" if status == due else f"{status} for {command} {body[:20]!r}"


def dawdle(url: str, enough: threading.Event) -> None:
    """Begin requests, and leave them for the server to give up on."""
    address = urlsplit(url)
    with contextlib.ExitStack() as left:
        while not enough.wait(1):
            slow = left.enter_context(socket.create_connection((address.hostname, address.port)))
            slow.sendall(f"POST {TARGET}{FULL} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx".encode())


@contextlib.contextmanager
def going_on(url: str, seen: Seen) -> Iterator[None]:
    enough, threads = threading.Event(), []

    def again(act: Callable[[httpx2.Client, random.Random, int], str], seed: int) -> None:
        rng = random.Random(seed)
        with httpx2.Client(base_url=url, timeout=30) as client:
            while not enough.wait(PAUSE_S):
                if fault := act(client, rng, seen.reached):
                    seen.faults.append(fault)

    threads = [
        threading.Thread(target=again, args=(act, seed)) for act, seed in ((query, 1), (query, 2), (send_garbage, 3))
    ]
    threads += [threading.Thread(target=dawdle, args=(url, enough)), threading.Thread(target=seen.look, args=(enough,))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


class Seen:
    """What was noted of a server, second by second."""

    def __init__(self, served: Served) -> None:
        self.rows: list[dict[str, float]] = []
        self.faults: list[str] = []
        self.reached = 0
        self._served = served

    def look(self, enough: threading.Event) -> None:
        began = time.monotonic()
        with httpx2.Client(base_url=self._served.url, timeout=30) as client:
            while not enough.wait(1):
                ready = client.get("/readyz").json()
                self.reached = min(ready["positions"].values(), default=0)
                self.rows.append(
                    {
                        "seconds": round(time.monotonic() - began, 1),
                        "rss_mb": round(self._served.rss_mb(), 1),
                        "lag_events": ready["head"] - self.reached,
                        "lag_seconds": ready["lag_seconds"],
                        "head": ready["head"],
                    }
                )

    def summary(self) -> dict[str, Any]:
        first, last = self.rows[0], self.rows[-1]
        lags = sorted(row["lag_events"] for row in self.rows)
        return {
            "minutes": round(last["seconds"] / 60, 1),
            "events": last["head"],
            "rate": round((last["head"] - first["head"]) / (last["seconds"] - first["seconds"])),
            "most_rss_mb": max(row["rss_mb"] for row in self.rows),
            "lag_events_p50": lags[len(lags) // 2],
            "lag_events_most": lags[-1],
            "lag_seconds_most": max(row["lag_seconds"] for row in self.rows),
            "wrong_answers": len(self.faults),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--results", type=Path, help="a folder for soak.json, and soak.png beside it")
    options = parser.parse_args()
    ours, theirs = ({core} for core in sorted(some_cores(2)))
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/soak.db"
        with serving(database, cores=ours) as served:
            seen = Seen(served)
            with going_on(served.url, seen):
                until = time.monotonic() + options.minutes * 60
                while (left := until - time.monotonic()) > 1:
                    load.post(served.url, connections=32, seconds=int(min(left, SEGMENT_S)) or 1, cores=theirs)
        environment = {"PROJECTOR_DATABASE_URL": database, "PROJECTOR_SDK_APP_ID": APP_ID}
        verify = [sys.executable, "-m", "projector", "verify", "--log-only"]
        verified = subprocess.run(verify, env=environment, capture_output=True, text=True, check=False)
    print(verified.stdout, end="")
    results = {"machine": machine(), "load": load.generator(), **seen.summary()}
    print(json.dumps(results, indent=1), *seen.faults[:20], sep="\n")
    if options.results:
        (options.results / "soak.json").write_text(json.dumps({**results, "rows": seen.rows}) + "\n")
        subprocess.run([sys.executable, "-m", "scripts.bench.charts", "soak"], check=True)
    if verified.returncode or seen.faults or results["most_rss_mb"] > MAX_RSS_MB:
        sys.exit("the soak failed: see above")


if __name__ == "__main__":
    main()
