"""Load from outside, on cores of its own: wrk where it is installed, else a sender in Python that is said to be one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from scripts.bench.serving import APP_ID

GROUPS = 500
_SCRIPT = Path(__file__).parent / "callbacks.lua"
_QUESTION = _SCRIPT.with_name("get.lua")
_WRK = shutil.which("wrk")
_numbers = iter(range(0, 10**12, 10**7))


def generator() -> str:
    """Name what makes the load."""
    return "wrk" if _WRK else "the bundled sender in Python (install wrk for one that takes less of its core)"


def post(
    url: str, *, connections: int, seconds: float, cores: set[int], groups: int = GROUPS, pause_ms: int = 0
) -> dict[str, Any]:
    """Send callbacks, no two alike, each connection with a pause between two; return `rate`, `p50_ms` and `p99_ms`.

    Ends the program if one is refused.
    """
    first = next(_numbers)
    if _WRK:
        told = ["-s", str(_SCRIPT), "--", APP_ID, str(first), str(groups), str(pause_ms)]
        found = _wrk(url, connections, seconds, cores, *told)
    else:
        found = _run_sender(url, connections, seconds, cores, first, groups)
    if found["errors"]:
        sys.exit(f"{url}: {found['errors']} of {found['requests']} requests were not answered with success")
    return {**found, "rate": found["requests"] / found["seconds"]}


def get(
    url: str, address: str, etag: str | None, *, connections: int, seconds: float, cores: set[int]
) -> dict[str, Any]:
    """Ask a question again and again, with an ETag if there is one; return `rate`, `p50_ms` and `p99_ms`."""
    if not _WRK:
        sys.exit("this needs wrk: install the package of that name")
    found = _wrk(url, connections, seconds, cores, "-s", str(_QUESTION), "--", address, *([etag] if etag else []))
    if found["errors"]:
        sys.exit(f"{url}{address}: {found['errors']} of {found['requests']} requests were not answered with success")
    return {**found, "rate": found["requests"] / found["seconds"]}


def _wrk(url: str, connections: int, seconds: float, cores: set[int], *more: str) -> dict[str, Any]:
    command = [_WRK or "", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", url, *more]
    return _on(cores, command)


def _run_sender(url: str, connections: int, seconds: float, cores: set[int], first: int, groups: int) -> dict[str, Any]:
    told = [url, str(connections), str(seconds), str(first), str(groups)]
    return _on(cores, [sys.executable, "-m", "scripts.bench.load", *told])


def _on(cores: set[int], command: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(done.stdout.splitlines()[-1])


def callback(number: int, groups: int) -> tuple[str, bytes]:
    """Return the command of a callback and its body, as the script for wrk has them."""
    joins = number // groups % 10 != 9
    command = f"Group.CallbackAfter{'NewMemberJoin' if joins else 'MemberExit'}"
    user = number if joins else number - 5 * groups
    told: dict[str, Any] = {"CallbackCommand": command, "GroupId": f"@TGS#bench{number % groups}", "Type": "Public"}
    told |= {"JoinType": "Apply"} if joins else {"ExitType": "Quit"}
    told |= {
        "Operator_Account": f"user{number}",
        f"{'New' if joins else 'Exit'}MemberList": [{"Member_Account": f"user{user}"}],
    }
    return command, json.dumps(told | {"EventTime": 1_680_000_000_000 + number}).encode()


async def _send(url: str, connections: int, seconds: float, first: int, groups: int) -> dict[str, Any]:
    address, numbers, waits, errors = urlsplit(url), iter(range(first + 1, first + 10**7)), [], 0
    until = time.perf_counter() + seconds

    async def one() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while time.perf_counter() < until:
            command, body = callback(next(numbers), groups)
            query = urlencode({"SdkAppid": APP_ID, "contenttype": "json", "CallbackCommand": command})
            started = time.perf_counter()
            writer.write(
                f"POST /callback?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            waits.append(time.perf_counter() - started)
            errors += not answer.startswith(b"HTTP/1.1 200")
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    waits.sort()
    p50, p99 = (waits[len(waits) * part // 100] * 1000 for part in (50, 99))
    return {
        "requests": len(waits),
        "seconds": time.perf_counter() - started,
        "p50_ms": p50,
        "p99_ms": p99,
        "errors": errors,
    }


if __name__ == "__main__":
    _url, *_told = sys.argv[1:]
    _connections, _seconds, _first, _groups = _told
    print(json.dumps(asyncio.run(_send(_url, int(_connections), float(_seconds), int(_first), int(_groups)))))
