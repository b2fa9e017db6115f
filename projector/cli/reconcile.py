"""`projector reconcile`: compare the groups with the vendor's REST API, and append what it says otherwise."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import ExitStack, closing
from typing import Final, Self

import msgspec

from projector.bootstrap import (
    PROJECTIONS,
    open_generations,
    open_queries,
    open_stores,
    reconciliation_lock,
)
from projector.cli.output import say
from projector.cli.progress import Progress
from projector.event_store.reconciliations import RunReport
from projector.reconciliation.mirror import Mirror
from projector.reconciliation.report import lines
from projector.reconciliation.rest_client import RestClient
from projector.reconciliation.run import Reconciliation, RunOptions, has_drift
from projector.replay.replay import Replay
from projector.settings import Rest, Settings, WrongSetting

_UNITS: Final = {"list": "groups listed", "read": "groups read", "settle": "differing groups settled"}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "reconcile",
        help="compare the groups with the vendor's REST API, and correct them",
        description="Compare the groups with the vendor's REST API, and append what it says otherwise. An interrupted"
        " run goes on where it was. The exit status is 0 without drift, or after a first run; 1 with drift, which was"
        " corrected; 2 if the run did not finish.",
    )
    parser.add_argument("--group", nargs="+", action="extend", default=[], metavar="ID", help="only these groups")
    parser.add_argument("--check", action="store_true", help="compare without changing anything")
    parser.add_argument("--force", action="store_true", help="correct even if very much is gone, or of another app")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run, needs_database=False)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Reconcile, and print the report; return 1 if there was drift, unless this is the first run."""
    if settings.rest is None:
        raise WrongSetting(
            "PROJECTOR_REST_URL, PROJECTOR_REST_ADMIN and PROJECTOR_REST_KEY are not set; see docs/reconcile.md"
        )
    if settings.sdk_app_id is None:
        raise WrongSetting("PROJECTOR_SDK_APP_ID is not set; set it to the SDKAppID of your app in the console")
    with reconciliation_lock(settings):
        report = _reconcile(options, settings, settings.rest, settings.sdk_app_id)
    if options.json:
        say(msgspec.json.encode(report).decode())
    else:
        for line in lines(report):
            say(line)
    return 1 if has_drift(report) and not report.is_first else 0


def _reconcile(options: argparse.Namespace, settings: Settings, rest: Rest, sdk_app_id: int) -> RunReport:
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_stores(settings).events))
        queries = stack.enter_context(closing(open_queries(settings)))
        generations = open_generations(settings)
        progress = stack.enter_context(_Stages())

        def rebuild() -> None:
            Replay(store, generations, PROJECTIONS).rebuild_if_needed()

        mirror = Mirror(store, generations, queries, PROJECTIONS, rebuild)
        wanted = RunOptions(sdk_app_id, rest.settle_s, options.check, options.force, tuple(options.group))

        async def reconcile() -> RunReport:
            async with RestClient(
                rest.url,
                sdk_app_id=sdk_app_id,
                administrator=rest.administrator,
                key=rest.key,
                rate=rest.rate,
            ) as client:
                return await Reconciliation(store, mirror, client, wanted, progress.update).run()

        return asyncio.run(reconcile())


class _Stages:
    """A progress bar for each stage, with the time left."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._stage, self._done = "", 0
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def update(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._stack.close()
            self._stage, self._done = stage, 0
            self._bar = self._stack.enter_context(Progress("reconcile", _UNITS[stage], total))
        if self._bar:
            self._bar.advance(done - self._done)
        self._done = done
