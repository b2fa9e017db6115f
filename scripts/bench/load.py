"""Load from outside, on separate cores: wrk if it is installed, else a sender in Python, which the reports name."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from scripts.bench.serving import APP_ID

GROUPS = 500
NUMBER = "NUMBER"
_CALLBACKS = Path(__file__).parent / "callbacks.lua"
_QUESTION = _CALLBACKS.with_name("get.lua")
_WRK = shutil.which("wrk")
_numbers = iter(range(0, 10**12, 10**7))


def generator() -> str:
    """Return the name of the load generator."""
    return "wrk" if _WRK else "the bundled sender in Python (install wrk for one that takes less of its core)"


def post(
    url: str, *, connections: int, seconds: float, cores: set[int], groups: int = GROUPS, pause_ms: int = 0
) -> dict[str, Any]:
    """Send callbacks, no two alike, each connection with a pause between two.

    Return `rate`, `p50_ms`, `p99_ms` and `max_ms`. Ends the program if one is refused.
    """
    first = next(_numbers)
    script = [str(_CALLBACKS), "--", APP_ID, str(first), str(groups), str(pause_ms)]
    return _loaded(script, _Plan(url, connections, seconds, first, groups, pause_ms), cores)


def get(
    url: str, address: str, etag: str | None, *, connections: int, seconds: float, cores: set[int]
) -> dict[str, Any]:
    """Ask a question again and again, with an ETag if there is one; return `rate`, `p50_ms` and `p99_ms`.

    NUMBER in the address is a number that counts up, so that no two questions are the same.

    Ends the program if one is answered with an error.
    """
    script = [str(_QUESTION), "--", address, *([etag] if etag else [])]
    return _loaded(script, _Plan(url, connections, seconds, address=address, etag=etag), cores)


class _Plan(NamedTuple):
    """What to send: callbacks from a number on, or the question at an address."""

    url: str
    connections: int
    seconds: float
    first: int = 0
    groups: int = GROUPS
    pause_ms: int = 0
    address: str | None = None
    etag: str | None = None

    def request(self, number: int) -> bytes:
        if self.address is not None:
            condition = f"If-None-Match: {self.etag}\r\n" if self.etag else ""
            address = self.address.replace(NUMBER, str(number))
            return f"GET {address} HTTP/1.1\r\nHost: x\r\n{condition}\r\n".encode()
        command, body = callback(self.first + number, self.groups)
        query = urlencode({"SdkAppid": APP_ID, "contenttype": "json", "CallbackCommand": command})
        head = f"POST /callback?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


def _loaded(script: list[str], plan: _Plan, cores: set[int]) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.bench.load", json.dumps(plan)]
    if _WRK:
        command = [_WRK, "-t1", f"-c{plan.connections}", f"-d{plan.seconds:g}s", "--timeout", "10s", plan.url]
        command += ["-s", *script]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    results = json.loads(done.stdout.splitlines()[-1])
    if results["errors"]:
        sys.exit(f"{plan.url}: {results['errors']} of {results['requests']} requests were not answered with success")
    return {**results, "rate": results["requests"] / results["seconds"]}


def callback(number: int, groups: int) -> tuple[str, bytes]:
    """Return the command of a callback and its body, as the script for wrk has them."""
    joins = number // groups % 10 != 9
    command = f"Group.CallbackAfter{'NewMemberJoin' if joins else 'MemberExit'}"
    user = number if joins else number - 5 * groups
    body: dict[str, Any] = {"CallbackCommand": command, "GroupId": f"@TGS#bench{number % groups}", "Type": "Public"}
    body |= {"JoinType": "Apply"} if joins else {"ExitType": "Quit"}
    body |= {
        "Operator_Account": f"user{number}",
        f"{'New' if joins else 'Exit'}MemberList": [{"Member_Account": f"user{user}"}],
    }
    return command, json.dumps(body | {"EventTime": 1_680_000_000_000 + number}).encode()


async def _send(plan: _Plan) -> dict[str, Any]:
    address, numbers, waits, errors = urlsplit(plan.url), count(1), [], 0
    until = time.perf_counter() + plan.seconds

    async def send() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while time.perf_counter() < until:
            request = plan.request(next(numbers))
            started = time.perf_counter()
            writer.write(request)
            response = await reader.readuntil(b"\r\n\r\n")
            if length := response.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]:
                await reader.readexactly(int(length))
            waits.append(time.perf_counter() - started)
            errors += not response.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304"))
            if plan.pause_ms:
                await asyncio.sleep(plan.pause_ms / 1_000)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(plan.connections)))
    waits.sort()
    p50, p99 = (waits[len(waits) * part // 100] * 1_000 for part in (50, 99))
    seconds = time.perf_counter() - started
    times = {"p50_ms": p50, "p99_ms": p99, "max_ms": waits[-1] * 1_000}
    return {"requests": len(waits), "seconds": seconds, "errors": errors, **times}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_send(_Plan(*json.loads(sys.argv[1]))))))
