"""What `make demo` does: serve in a folder of its own, simulate, show a roster; stop, or with --keep go on serving."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from urllib.parse import quote

PROJECTOR = [sys.executable, "-m", "projector"]


def get(address: str) -> dict:
    with urllib.request.urlopen(address) as response:
        return json.load(response)


def serving_at(server: subprocess.Popen[str]) -> str:
    for line in server.stderr:
        if line.startswith("{") and (entry := json.loads(line))["event"] == "serving":
            return entry["address"]
        sys.stderr.write(line)
    sys.exit("demo: the server did not start")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PROJECTOR_DATABASE_URL": f"sqlite:///{folder}/demo.db",
            "PROJECTOR_LOG_FORMAT": "json",
            "PROJECTOR_LOG_LEVEL": "INFO",
        }
        server = subprocess.Popen(
            [*PROJECTOR, "serve", "--port", "0"], env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            url = serving_at(server)
            print(f"serving on {url}; sending callbacks, some twice, some late, some without a time", flush=True)
            simulation = [*PROJECTOR, "simulate", "--url", url, "--callbacks", "5000"]
            simulated = subprocess.run(simulation, env=environment, check=False)
            largest = max(
                get(f"{url}/v1/groups?status=active&limit=1000")["groups"], key=lambda group: group["member_count"]
            )
            address = f"{url}/v1/groups/{quote(largest['group_id'], safe='')}"
            roster = get(f"{address}/members?limit=10")["members"]
            print(f"\n{largest['group_id']}  {largest['name']}  {largest['type']}  {largest['member_count']} members")
            for member in roster:
                print(f"  {member['user_id']:<28} {member['role']:<7} since {member['joined_at']}")
            if largest["member_count"] > len(roster):
                print(f"  and {largest['member_count'] - len(roster)} more")
            if "--keep" in sys.argv:
                addresses = (f"{url}/v1/groups", f"{address}/members", f"{url}/v1/status", f"{url}/metrics")
                print(
                    "", "Still serving, until Ctrl-C:", *(f"  {address}" for address in addresses), sep="\n", flush=True
                )
                with contextlib.suppress(KeyboardInterrupt):
                    shutil.copyfileobj(server.stderr, sys.stderr)
        except KeyboardInterrupt:
            return 130
        finally:
            server.terminate()
            server.wait()
            server.stderr.close()
    return simulated.returncode


if __name__ == "__main__":
    sys.exit(main())
