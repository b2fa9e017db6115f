"""What a replay takes from a server beside it: `python -m scripts.bench.beside`.

Server and senders share one core in every round; in every other round a replay of the same events runs on the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.bench import load
from scripts.bench.logs import Town, write_log
from scripts.bench.rounds import machine, median, some_cores, table
from scripts.bench.serving import APP_ID, serving

CONNECTIONS = 32


def rounds_of(url: str, environment: dict[str, str], count: int, seconds: float) -> dict[str, list[dict]]:
    mine, other = sorted(some_cores(2))
    results: dict[str, list[dict]] = {"alone": [], "beside a replay": []}

    def sent(seconds: float) -> dict:
        return load.post(url, connections=CONNECTIONS, seconds=seconds, cores={mine})

    sent(seconds / 2)
    for number in range(count):
        print(f"round {number + 1} of {count}", file=sys.stderr, flush=True)
        results["alone"].append(sent(seconds))
        replay = subprocess.Popen(
            [sys.executable, "-m", "projector", "replay", "--jobs", "1"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.sched_setaffinity(replay.pid, {other})
        results["beside a replay"].append(sent(seconds))
        if replay.poll() is not None:
            sys.exit("the replay was over before the round was: use more events")
        replay.kill()
        replay.wait()
    return results


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
            results = rounds_of(served.url, environment, options.rounds, options.seconds)
    alone, beside = (median(results[name], "rate") for name in results)
    print(f"\n{machine()}; medians of {options.rounds} rounds\n")
    row = [f"{alone:,.0f}", f"{beside:,.0f}", f"{beside / alone:.2f}"]
    print(table(["callbacks/s alone", "beside a replay", "ratio"], [row]))


if __name__ == "__main__":
    main()
