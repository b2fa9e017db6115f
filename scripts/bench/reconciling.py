"""A bootstrap, and a second run, against the simulated vendor: time, requests, memory.

python -m scripts.bench.reconciling --groups 20000 --members 50
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from projector.simulator.vendor.groups import VendorGroups
from tests.vendor import imported, vendor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=20_000)
    parser.add_argument("--members", type=int, default=50)
    parser.add_argument("--community", type=int, default=100_000, help="members of a Community beside them")
    options = parser.parse_args()
    groups = VendorGroups()
    for number in range(options.groups):
        groups.add(f"@TGS#{number}", imported(*(f"user{number}-{member}" for member in range(options.members))))
    if options.community:
        groups.add("@TGS#_c", imported(*(f"user{member}" for member in range(options.community)), kind="Community"))
    with tempfile.TemporaryDirectory() as directory, vendor(groups) as fake:
        settings = fake.settings(
            PROJECTOR_SDK_APP_ID="1400000000", PROJECTOR_DATABASE_URL=f"sqlite:///{Path(directory)}/events.db"
        )
        for name in ("bootstrap", "second run"):
            asked, began = len(fake.requests), time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "projector", "reconcile"],
                env={**os.environ, **settings},
                stderr=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began
            requests, cpu_s = len(fake.requests) - asked, usage.ru_utime + usage.ru_stime
            print(
                f"{name}: {seconds:.0f} s, {requests} requests, {cpu_s:.0f} s of CPU, {usage.ru_maxrss // 1024} MB,"
                f" status {os.waitstatus_to_exitcode(status)}",
                flush=True,
            )
    print(f"the vendor's own memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
