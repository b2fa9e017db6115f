"""What followers cost: `python -m scripts.bench.following`.

Callbacks come at a fixed rate, without streams, with one, and with 200. Shown are the callbacks' times, the CPU time of
each process, and how long after its acknowledgement a change reached the first follower.
"""

from __future__ import annotations

import argparse
import http.client
import json
import selectors
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from scripts.bench.rounds import some_cores
from scripts.bench.serving import APP_ID, serving

COMMAND = "Group.CallbackAfterNewMemberJoin"
QUERY = urlencode({"SdkAppid": APP_ID, "CallbackCommand": COMMAND, "contenttype": "json"})
TOKENS = 10
STREAMS = (0, 1, 200)


class Sender:
    """Posts at a rate, over one connection; keeps when each position was acknowledged."""

    def __init__(self, url: str, rate: int) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)
        self._rate = rate
        self._serial = 0
        self.acknowledged: dict[int, float] = {}

    def post(self, seconds: float) -> list[float]:
        """Post for so many seconds; return how long each callback took, in ms."""
        begin, waits = time.perf_counter(), []
        while (now := time.perf_counter()) < begin + seconds:
            if len(waits) > (now - begin) * self._rate:
                time.sleep(0.001)
                continue
            waits.append(self._post())
        return waits

    def _post(self) -> float:
        self._serial += 1
        about = {"CallbackCommand": COMMAND, "GroupId": f"g{self._serial % 200}", "EventTime": 10**12 + self._serial}
        body = json.dumps({**about, "NewMemberList": [{"Member_Account": f"u{self._serial}"}]})
        started = time.perf_counter()
        self._connection.request("POST", f"/callback?{QUERY}", body)
        response = self._connection.getresponse()
        response.read()
        ended = time.perf_counter()
        self.acknowledged[int(response.headers["Projector-Position"])] = ended
        return (ended - started) * 1_000


def stream(url: str, number: int) -> socket.socket:
    address = urlsplit(url)
    opened = socket.create_connection((address.hostname, address.port))
    lines = ("GET /v1/changes?after=latest HTTP/1.1", "Host: x", "Accept: text/event-stream")
    opened.sendall("\r\n".join((*lines, f"Authorization: Bearer t{number % TOKENS}", "", "")).encode())
    return opened


def read(streams: list[socket.socket], received: dict[int, float], ended: threading.Event) -> None:
    """Read all streams; note when the first of them gets each position."""
    selector = selectors.DefaultSelector()
    for number, opened in enumerate(streams):
        selector.register(opened, selectors.EVENT_READ, number)
    while not ended.is_set():
        for key, _ in selector.select(0.1):
            data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
            for line in data.split(b"\n") if key.data == 0 else ():
                if line.startswith(b"id: "):
                    received.setdefault(int(line[4:].split(b"-")[0]), time.perf_counter())


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def processes(url: str) -> dict[str, int]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/readyz", headers={"Authorization": "Bearer t0"})
    states: dict[str, Any] = json.loads(connection.getresponse().read())["processes"]
    return {name: state["pid"] for name, state in states.items()}


def measure(url: str, sender: Sender, count: int, seconds: float) -> str:
    streams = [stream(url, number) for number in range(count)]
    received: dict[int, float] = {}
    ended, pids = threading.Event(), processes(url)
    time.sleep(1)
    reader = threading.Thread(target=read, args=(streams, received, ended))
    reader.start()
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    callbacks = sender.post(seconds)
    cpu = {name: round(cpu_s(pid) - before[name], 2) for name, pid in pids.items()}
    time.sleep(0.5)
    ended.set()
    reader.join()
    for opened in streams:
        opened.close()
    seen = [(at - sender.acknowledged[place]) * 1_000 for place, at in received.items() if place in sender.acknowledged]
    return f"{count:3} streams: callbacks {quantiles(callbacks)}; seen {quantiles(seen)}; CPU {cpu} s"


def quantiles(times: list[float]) -> str:
    if len(times) < 2:
        return "never"
    found = statistics.quantiles(times, n=100)
    return f"p50 {found[49]:.1f} ms, p99 {found[98]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tokens = ",".join(f"t{number}" for number in range(TOKENS))
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(f"sqlite:///{Path(folder, 'bench.db')}", cores=some_cores(2), PROJECTOR_READ_TOKENS=tokens) as served,
    ):
        sender = Sender(served.url, options.rate)
        sender.post(2)
        for _ in range(options.rounds):
            for count in STREAMS:
                print(measure(served.url, sender, count, options.seconds), flush=True)


if __name__ == "__main__":
    main()
