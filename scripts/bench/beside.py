"""What a replay takes from a server beside it: `python -m scripts.bench.beside`.

Server and senders share one core in every round; in every other round a replay of the same events runs on the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from scripts.bench.logs import Town, write_log
from scripts.bench.rounds import machine, median, some_cores, table
from scripts.bench.serving import APP_ID, serving

CONNECTIONS = 32
COMMAND = "Group.CallbackAfterNewMemberJoin"
QUERY = urlencode({"SdkAppid": APP_ID, "CallbackCommand": COMMAND, "contenttype": "json"})


def callback(number: int) -> bytes:
    body = {
        "CallbackCommand": COMMAND,
        "GroupId": f"@TGS#live{number % 500}",
        "Type": "Public",
        "JoinType": "Apply",
        "Operator_Account": "admin",
        "NewMemberList": [{"Member_Account": f"user{number}"}],
        "EventTime": 1_680_000_000_000 + number,
    }
    return json.dumps(body).encode()


class Senders:
    """Keeps a server busy over some connections, and counts what it acknowledges."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._number = 0
        self.acknowledged = 0

    async def send_for(self, seconds: float) -> float:
        """Send, and return the acknowledged callbacks per second."""
        self.acknowledged = 0
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*(self._send(started + seconds) for _ in range(CONNECTIONS)))
        return self.acknowledged / (loop.time() - started)

    async def _send(self, until: float) -> None:
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        while asyncio.get_running_loop().time() < until:
            self._number += 1
            body = callback(self._number)
            head = f"POST /callback?{QUERY} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if not answer.startswith(b"HTTP/1.1 200"):
                sys.exit(f"refused: {answer!r}")
            self.acknowledged += 1
        writer.close()


def rounds_of(url: str, environment: dict[str, str], count: int, seconds: float) -> dict[str, list[dict]]:
    mine, other = sorted(some_cores(2))
    os.sched_setaffinity(0, {mine})
    senders, found = Senders(url), {"alone": [], "beside a replay": []}
    asyncio.run(senders.send_for(seconds / 2))
    for number in range(count):
        print(f"round {number + 1} of {count}", file=sys.stderr, flush=True)
        found["alone"].append({"rate": asyncio.run(senders.send_for(seconds))})
        replay = subprocess.Popen(
            [sys.executable, "-m", "projector", "replay", "--jobs", "1"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.sched_setaffinity(replay.pid, {other})
        rate = asyncio.run(senders.send_for(seconds))
        if replay.poll() is not None:
            sys.exit("the replay was over before the round was: use more events")
        found["beside a replay"].append({"rate": rate})
        replay.kill()
        replay.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--folder", type=Path, help="where to write the log; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        database = Path(folder, "events.db")
        write_log(database, (Town(5_000, 1), options.events))
        settings = {"PROJECTOR_DATABASE_URL": f"sqlite:///{database}", "PROJECTOR_SDK_APP_ID": APP_ID}
        environment = {**os.environ, **settings}
        subprocess.run([sys.executable, "-m", "projector", "replay"], env=environment, check=True)
        with serving(f"sqlite:///{database}", cores={min(some_cores(2))}) as served:
            found = rounds_of(served.url, environment, options.rounds, options.seconds)
    alone, beside = (median(found[name], "rate") for name in found)
    print(f"\n{machine()}; medians of {options.rounds} rounds\n")
    row = [f"{alone:,.0f}", f"{beside:,.0f}", f"{beside / alone:.2f}"]
    print(table(["callbacks/s alone", "beside a replay", "ratio"], [row]))


if __name__ == "__main__":
    main()
