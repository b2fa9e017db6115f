"""How long after its acknowledgement a change is seen in `/v1`: `python -m scripts.bench.visible`.

At half the top rate, which is measured first. Beside the load, one probe after the other is posted, and then asked for
with `wait_for` until the answer shows it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from scripts.bench import load
from scripts.bench.rounds import machine, some_cores, table
from scripts.bench.serving import APP_ID, serving

CONNECTIONS = 32


def probes(url: str, ended: threading.Event) -> list[float]:
    """Post callbacks, and return how long each took to be seen, in ms."""
    waits, connection = [], http.client.HTTPConnection(urlsplit(url).netloc)
    command = "Group.CallbackAfterNewMemberJoin"
    query = urlencode({"SdkAppid": APP_ID, "CallbackCommand": command, "contenttype": "json"})
    while not ended.is_set():
        user = f"probe{len(waits)}"
        body = {"CallbackCommand": command, "GroupId": "probed", "NewMemberList": [{"Member_Account": user}]}
        connection.request(
            "POST", f"/callback?{query}", json.dumps(body | {"EventTime": 1_690_000_000_000 + len(waits)})
        )
        response = connection.getresponse()
        response.read()
        acknowledged = time.perf_counter()
        position = response.headers["Projector-Position"]
        connection.request("GET", f"/v1/groups/probed/members/{user}?wait_for={position}")
        response = connection.getresponse()
        response.read()
        assert response.status == 200
        waits.append((time.perf_counter() - acknowledged) * 1_000)
    return waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--folder", type=Path, help="where the database is; default: a temporary folder")
    options = parser.parse_args()
    server_core, load_core = ({core} for core in sorted(some_cores(2), reverse=True))
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        serving(f"sqlite:///{Path(folder, 'bench.db')}", cores=server_core) as served,
    ):
        load.post(served.url, connections=CONNECTIONS, seconds=2, cores=load_core)
        top = load.post(served.url, connections=CONNECTIONS, seconds=options.seconds, cores=load_core)
        pause_ms = max(1, round(CONNECTIONS / (top["rate"] / 2) * 1_000 - top["p50_ms"]))
        ended, results = threading.Event(), []
        probing = threading.Thread(target=lambda: results.extend(probes(served.url, ended)))
        probing.start()
        beside = load.post(
            served.url, connections=CONNECTIONS, seconds=options.seconds, cores=load_core, pause_ms=pause_ms
        )
        ended.set()
        probing.join()
    hundredths = statistics.quantiles(results, n=100)
    print(f"\n{machine()}; load: {load.generator()}\n")
    row = [f"{top['rate']:,.0f}", f"{beside['rate']:,.0f}", f"{len(results)}"]
    row += [f"{hundredths[place - 1]:.1f}" for place in (50, 90, 99)]
    print(table(["top rate, /s", "rate beside, /s", "probes", "seen after ms: p50", "p90", "p99"], [row]))


if __name__ == "__main__":
    main()
