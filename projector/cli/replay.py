"""`projector replay`: rebuild the read model from the history, compare, and swap."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Final, Self

from projector.bootstrap import PROJECTIONS, Stores, open_events, open_generations, open_spool, open_stores
from projector.cli.arguments import whole_number
from projector.cli.output import note, say
from projector.cli.progress import Progress
from projector.event_store import EventStore
from projector.forgetting import Mentions, finish
from projector.processes.parent import stop_with_parent
from projector.read_model.generations import Generations, RebuildProgress
from projector.replay.build import Jobs
from projector.replay.compare import Difference
from projector.replay.replay import Replay, ReplayResult
from projector.settings import Settings

_REPORT_EVERY_S: Final = 0.2
_STOP_TIMEOUT_S: Final = 5.0
_MAX_JOBS: Final = 4
_FORMER_PROJECTIONS: Final = ("membership", "profile", "fullness", "timeline")
"""Parts of the read model that earlier versions rebuilt alone."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("replay", help="rebuild the read model from the history, compare, and swap")
    names = [*(projection.name for projection in PROJECTIONS), *_FORMER_PROJECTIONS]
    parser.add_argument("--projection", choices=names, help="has no effect: the read model is rebuilt as a whole")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--group", metavar="ID", help="compare and correct only this group")
    mode.add_argument("--rollback", action="store_true", help="go back to the read model before the last replay")
    mode.add_argument("--if-needed", action="store_true", help="only what is missing or of another version")
    parser.add_argument("--check", action="store_true", help="compare without changing anything")
    parser.add_argument("--while-open", type=int, metavar="FD", help=argparse.SUPPRESS)
    add_jobs_to(parser)
    parser.set_defaults(run=run, needs_database=True, refuse=parser.error)


def add_jobs_to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 64),
        default=_default_jobs(),
        metavar="N",
        help="number of processes that rebuild (default: all cores but one, at most 4)",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Replay and print each difference; return 1 if there is any, 2 if there was nothing to compare with."""
    for option in ("rollback", "if_needed"):
        if getattr(options, option) and (options.check or options.projection):
            options.refuse(f"--{option.replace('_', '-')} cannot be combined with --check or --projection")
    if options.while_open is not None:
        stop_with_parent(options.while_open, timeout_s=_STOP_TIMEOUT_S)
    stores = open_stores(settings, read_only=options.check)
    store = stores.events
    with closing(store), _replay(options, settings, store) as replay:
        if options.if_needed and store.forgotten.unfinished_count():
            finish_forgetting(options, settings, stores)
        if options.group is not None and not store.read_group(options.group, 0, 1):
            note(f"projector: no events for group {options.group}")
            return 1
        if options.rollback:
            say(f"position {replay.roll_back()}: rolled back to the previous read model")
            return 0
        result = _run(replay, options)
    if result is None:
        say("read model is up to date")
        return 0
    return _report(result, check=options.check)


def check(options: argparse.Namespace, settings: Settings, store: EventStore) -> int:
    """Compare the read model with the history and print each difference.

    Return 1 if there is any, 2 if there was nothing to compare with.
    """
    with _replay(options, settings, store) as replay:
        return _report(replay.rebuild(check=True), check=True)


def finish_forgetting(options: argparse.Namespace, settings: Settings, stores: Stores) -> Mentions:
    """Complete all forgettings that have begun, and print what was redacted."""

    def rebuild() -> None:
        say(f"position {replay.replace_outdated()}: read model rebuilt; earlier copies deleted")

    with ExitStack() as stack:
        replay = stack.enter_context(_replay(options, settings, stores.events))
        progress = stack.enter_context(Progress("forget", "events", stores.events.head()))
        if spool := open_spool(settings, stores.events):
            stack.callback(spool.close)
        mentions = finish(stores.events, stores.quarantine, spool, rebuild=rebuild, on_progress=progress.advance)
    say(
        f"redacted {mentions.events} events of {mentions.groups} groups, {mentions.quarantined} callbacks in the"
        f" quarantine and {mentions.spooled} in the spool"
    )
    return mentions


@contextmanager
def _replay(options: argparse.Namespace, settings: Settings, store: EventStore) -> Iterator[Replay]:
    generations = open_generations(settings)
    with _ProgressReport(generations) as progress:
        yield Replay(
            store,
            generations,
            PROJECTIONS,
            on_difference=_DifferenceReport().add,
            on_progress=progress.update,
            on_wait=lambda: note("replay: waiting for another replay of this database"),
            jobs=Jobs(options.jobs, partial(open_events, settings, read_only=True)),
        )


def _default_jobs() -> int:
    # One core is left to the server.
    return max(1, min(len(os.sched_getaffinity(0)) - 1, _MAX_JOBS))


def _run(replay: Replay, options: argparse.Namespace) -> ReplayResult | None:
    if options.if_needed:
        return replay.rebuild_if_needed()
    if options.group is not None:
        return replay.rebuild_group(options.group, check=options.check)
    return replay.rebuild(check=options.check)


def _report(result: ReplayResult, *, check: bool) -> int:
    say(f"position {result.position}: {_outcome(result, check=check)}")
    if check and result.reasons_to_rebuild:
        return 2
    return 1 if result.differences else 0


def _outcome(result: ReplayResult, *, check: bool) -> str:
    if result.reasons_to_rebuild:
        return f"nothing to compare with: {'; '.join(result.reasons_to_rebuild)}"
    if result.differences:
        rows = f"{result.differences} row{'s' * (result.differences != 1)} differed"
        return rows if check else f"{rows}; corrected"
    return "read model matches the history"


class _DifferenceReport:
    """Prints differences as they are found, group by group."""

    def __init__(self) -> None:
        self._group: object = None

    def add(self, difference: Difference) -> None:
        group_id, *key = difference.key
        if group_id != self._group:
            self._group = group_id
            say(f"group {group_id}")
        say(f"  {' '.join(map(str, [difference.table, *key]))}")
        say(f"    live     {difference.live}")
        say(f"    rebuilt  {difference.rebuilt}")


class _ProgressReport:
    """Shows the progress here, and makes it known to `projector status`."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._phase = ""
        self._done = 0
        self._reported_at = 0.0
        self._stack = ExitStack()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def update(self, progress: RebuildProgress) -> None:
        if progress.phase != self._phase:
            self._begin(progress)
        if self._bar:
            self._bar.advance(progress.done - self._done)
            self._done = progress.done
        if time.monotonic() - self._reported_at > _REPORT_EVERY_S:
            self._reported_at = time.monotonic()
            self._generations.report_progress(progress)

    def _begin(self, progress: RebuildProgress) -> None:
        self._stack.close()
        self._phase, self._done, self._bar, self._reported_at = progress.phase, 0, None, 0.0
        if progress.total:
            self._bar = self._stack.enter_context(Progress("replay", "events", progress.total))
        else:
            note(f"replay: {progress.phase}")
