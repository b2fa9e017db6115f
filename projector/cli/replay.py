"""`projector replay`: rebuild the read model from the events, compare, swap."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from projector.bootstrap import PROJECTIONS, open_events, open_generations
from projector.cli.arguments import whole_number
from projector.cli.progress import Progress
from projector.replay.build import Jobs
from projector.replay.replay import Replay

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Self

    from projector.event_store import EventStore
    from projector.read_model.generations import Generations, RebuildProgress
    from projector.replay.compare import Difference
    from projector.replay.replay import ReplayResult
    from projector.settings import Settings

_TELL_EVERY_S: Final = 0.2
_MAX_JOBS: Final = 4


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("replay", help="rebuild the read model from the events, compare, swap")
    parser.add_argument("--projection", choices=[one.name for one in PROJECTIONS], help="rebuild only this one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--group", metavar="ID", help="compare and put right this group only")
    what.add_argument("--rollback", action="store_true", help="go back to the read model before the last replay")
    what.add_argument("--if-needed", action="store_true", help="only what is missing or of another version")
    parser.add_argument("--check", action="store_true", help="only compare")
    add_jobs_to(parser)
    parser.set_defaults(run=run, needs_database=True)


def add_jobs_to(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how many processes may build."""
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 64),
        default=_jobs(),
        metavar="N",
        help="processes that build; default: all cores but one, at most 4",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Replay, print each difference, and return 1 if there was one."""
    with closing(open_events(settings)) as store, _replaying(options, settings, store) as replay:
        if options.rollback:
            _say(f"position {replay.roll_back()}: the read model before is live again")
            return 0
        replayed = _replayed(replay, options)
    if replayed is None:
        _say("the read model is of these events and of this version")
        return 0
    return _tell(replayed, check=options.check)


def check(options: argparse.Namespace, settings: Settings, store: EventStore) -> int:
    """Compare the read model with what the events say, print each difference, and return 1 if there was one."""
    with _replaying(options, settings, store) as replay:
        return _tell(replay.rebuild(check=True), check=True)


def renew(options: argparse.Namespace, settings: Settings, store: EventStore) -> None:
    """Build the read model anew, and keep none from before."""
    with _replaying(options, settings, store) as replay:
        _say(f"position {replay.replace_all()}: the read model is built anew, and none from before is left")


@contextmanager
def _replaying(options: argparse.Namespace, settings: Settings, store: EventStore) -> Iterator[Replay]:
    generations = open_generations(settings)
    with _Teller(generations) as teller:
        yield Replay(
            store,
            generations,
            PROJECTIONS,
            on_difference=_Report().add,
            on_progress=teller.tell,
            on_wait=_say_who_waits,
            jobs=Jobs(options.jobs, partial(open_events, settings)),
        )


def _jobs() -> int:
    """Leave a core to the server beside."""
    return max(1, min(len(os.sched_getaffinity(0)) - 1, _MAX_JOBS))


def _replayed(replay: Replay, options: argparse.Namespace) -> ReplayResult | None:
    if options.if_needed:
        return replay.rebuild_if_needed()
    if options.group is not None:
        return replay.rebuild_group(options.group, only=options.projection, check=options.check)
    return replay.rebuild(only=options.projection, check=options.check)


def _tell(replayed: ReplayResult, *, check: bool) -> int:
    _say(_outcome(replayed, check=check))
    return 1 if replayed.differences else 0


def _outcome(replayed: ReplayResult, *, check: bool) -> str:
    outcome = "the read model is what the events say"
    if replayed.reasons_to_rebuild:
        outcome = f"there was nothing to compare with: {'; '.join(replayed.reasons_to_rebuild)}"
    elif replayed.differences:
        outcome = f"{replayed.differences} row(s) differed" + ("" if check else " and are right now")
    return f"position {replayed.position}: {outcome}"


class _Report:
    """Prints differences as they are found, group by group."""

    def __init__(self) -> None:
        self._group: object = None

    def add(self, difference: Difference) -> None:
        group_id, *key = difference.key
        if group_id != self._group:
            self._group = group_id
            _say(f"group {group_id}")
        _say(f"  {' '.join(map(str, [difference.table, *key]))}")
        _say(f"    was      {difference.live}")
        _say(f"    must be  {difference.rebuilt}")


class _Teller:
    """Shows how far the work is: here, and to `projector status`."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._phase = ""
        self._done = 0
        self._told_at = 0.0
        self._stack = ExitStack()
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tell(self, building: RebuildProgress) -> None:
        if building.phase != self._phase:
            self._begin(building)
        if self._progress:
            self._progress.advance(building.done - self._done)
            self._done = building.done
        if time.monotonic() - self._told_at > _TELL_EVERY_S:
            self._told_at = time.monotonic()
            self._generations.report_progress(building)

    def _begin(self, building: RebuildProgress) -> None:
        self._stack.close()
        self._phase, self._done, self._progress, self._told_at = building.phase, 0, None, 0.0
        if building.total:
            self._progress = self._stack.enter_context(Progress("replay", "events", building.total))
        else:
            print(f"replay: {building.phase}", file=sys.stderr, flush=True)  # noqa: T201 - this is what a person reads


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _say_who_waits() -> None:
    print("replay: waiting for another replay of this database to end", file=sys.stderr, flush=True)  # noqa: T201 - this is what a person reads
