"""`projector simulate`: send seeded, realistic traffic to a running receiver, and check the resulting rosters."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Final

from projector.cli.arguments import share, whole_number
from projector.cli.progress import Progress
from projector.settings import Settings, WrongSetting
from projector.simulator import Options, Report, Unreachable, simulate

_MAX_SHOWN_DIFFERENCES: Final = 50
_DEFAULTS: Final = Options(url="", sdk_app_id=0, callback_path="")
_AMOUNTS: Final[dict[str, tuple[Callable[[str], float], str]]] = {
    "seed": (whole_number(0), "the same seed gives the same traffic"),
    "groups": (whole_number(1), "number of groups"),
    "callbacks": (whole_number(1), "approximate number of callbacks"),
    "connections": (whole_number(1), "number of connections"),
    "repeats": (share, "share of callbacks sent twice"),
    "reordered": (share, "share of callbacks sent late"),
    "untimed": (share, "share of callbacks without EventTime"),
}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("simulate", help="send realistic traffic to a running receiver, and check the rosters")
    parser.add_argument("--url", required=True, help="the receiver's address, e.g. http://127.0.0.1:8000")
    for name, (type_, meaning) in _AMOUNTS.items():
        default = getattr(_DEFAULTS, name)
        parser.add_argument(f"--{name}", type=type_, default=default, help=f"{meaning} (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="callbacks per second (default: as fast as they are acknowledged)")
    parser.add_argument("--no-check", action="store_true", help="do not check the rosters")
    parser.set_defaults(run=run, needs_database=False)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Simulate and print the results; return 1 if a callback was refused or a group does not match."""
    if settings.sdk_app_id is None:
        raise WrongSetting("PROJECTOR_SDK_APP_ID is not set; set it to the receiver's")
    with contextlib.ExitStack() as stack:
        on_sent, on_checked = _Bar(stack, "callbacks"), _Bar(stack, "groups checked")
        wanted = Options(
            url=options.url,
            sdk_app_id=settings.sdk_app_id,
            token=next(iter(settings.callback_tokens), None),
            read_token=next((read_token.token for read_token in settings.read_tokens), None),
            callback_path=settings.callback_path,
            rate=options.rate,
            check=not options.no_check,
            **{name: getattr(options, name) for name in _AMOUNTS},
        )
        try:
            report = asyncio.run(simulate(wanted, on_sent=on_sent.advance, on_checked=on_checked.advance))
        except Unreachable as error:
            raise WrongSetting(str(error)) from None
    return _print(report)


class _Bar:
    """A progress bar that begins when its total is known."""

    def __init__(self, stack: contextlib.ExitStack, unit: str) -> None:
        self._stack, self._unit = stack, unit
        self._progress: Progress | None = None

    def advance(self, count: int, total: int) -> None:
        if self._progress is None:
            self._progress = self._stack.enter_context(Progress("simulate", self._unit, total))
        self._progress.advance(count)


def _print(report: Report) -> int:
    sent = sum(report.statuses.values())
    lines = [f"{sent} callbacks in {report.seconds:.1f} s, {sent / max(report.seconds, 1e-9):,.0f} per second"]
    lines += [f"  status {status}: {count}" for status, count in sorted(report.statuses.items())]
    lines += [f"  {command}: {count}" for command, count in sorted(report.commands.items())]
    if report.differences is not None:
        wrong = len({difference.group_id for difference in report.differences})
        lines.append(f"{report.groups} groups checked, {f'{wrong} with' if wrong else 'no'} mismatches")
        lines += [
            f"  {difference.group_id}: {difference.field} is {difference.shown!r}, expected {difference.expected!r}"
            for difference in report.differences[:_MAX_SHOWN_DIFFERENCES]
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if report.differences or report.statuses.keys() - {200} else 0
