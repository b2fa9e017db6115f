"""What other processes do in these tests; spawned processes import it by name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from projector.event_store import Candidate, StoreUnavailable
from tests.domain import facts as f
from tests.event_store.databases import OPENERS

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier


def append_batches(
    kind: str, location: str, start: Barrier, writer: int, batches: int, size: int
) -> list[tuple[int, int]]:
    """Append together with others; return each event's time, which tells it apart, and its position."""
    store, _ = OPENERS[kind](location, {})
    start.wait()
    appended = []
    for batch in range(batches):
        times = [writer * 1_000_000 + batch * size + place for place in range(size)]
        candidates = [Candidate(f.joined(time, "ann", group_id=f"g{time % 3}"), b"%016d" % time) for time in times]
        appended += list(zip(times, [result.position for result in store.append(candidates)], strict=True))
        store.append(candidates[:1])
    store.close()
    return appended


def open_each(kind: str, locations: list[str], start: Barrier) -> list[str]:
    """Open each of these databases at the same time as other processes; return the errors."""
    faults = []
    for location in locations:
        start.wait()
        try:
            OPENERS[kind](location, {})[0].close()
        except StoreUnavailable as error:
            faults.append(str(error))
    return faults


def append_until_killed(kind: str, location: str) -> None:
    """Append event after event, and print the position of each as soon as it is known."""
    store, _ = OPENERS[kind](location, {})
    time = 0
    while True:
        time += 1
        print(time, store.append([Candidate(f.joined(time, "ann"), None)])[0].position, flush=True)  # noqa: T201


if __name__ == "__main__":
    append_until_killed(*sys.argv[1:])
