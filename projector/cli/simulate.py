"""`projector simulate`: send realistic traffic to a running receiver, and check the rosters; or send one callback."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from projector.cli.arguments import address, share, whole_number
from projector.cli.output import note, say
from projector.cli.progress import Progress
from projector.clock import now_ms
from projector.settings import Settings, WrongSetting
from projector.simulator import Options, OtherGroups, Report, Unreachable, simulate
from projector.simulator.commands import RECORDED
from projector.simulator.life import Delivery, Life
from projector.simulator.names import ADMINISTRATOR
from projector.simulator.single import NEED_USER, compose, send
from projector.simulator.vendor.serving import KEY, serving

_DEFAULT_URL: Final = "http://127.0.0.1:8000"
_OK: Final = 200
_IMPORTED_PART: Final = 20
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
    "lose": (share, "share of callbacks never sent, with --vendor"),
}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("simulate", help="send realistic traffic to a running receiver, and check the rosters")
    parser.add_argument("--url", default=_DEFAULT_URL, help="the receiver's address (default: %(default)s)")
    parser.add_argument("--queries-url", metavar="URL", help="the address that answers queries, if it is another")
    for name, (type_, meaning) in _AMOUNTS.items():
        default = getattr(_DEFAULTS, name)
        parser.add_argument(f"--{name}", type=type_, default=default, help=f"{meaning} (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="callbacks per second (default: as fast as they are acknowledged)")
    parser.add_argument("--no-check", action="store_true", help="do not check the rosters")
    parser.add_argument(
        "--into-existing", action="store_true", help="send even if the store has groups that no simulation has made"
    )
    parser.add_argument(
        "--vendor",
        type=address,
        metavar="HOST:PORT",
        help="also serve the vendor's REST API there, with the true groups, until Ctrl-C, to try `projector reconcile`",
    )
    single = parser.add_argument_group("one callback instead of traffic")
    single.add_argument("--send", choices=RECORDED, metavar="COMMAND", help=f"one of {', '.join(RECORDED)}")
    single.add_argument("--group", metavar="ID", help="the group of the callback")
    single.add_argument(
        "--user", nargs="+", action="extend", default=[], metavar="ID", help="the users of the callback"
    )
    parser.set_defaults(run=run, needs_database=False, refuse=parser.error)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Simulate and print the results; return 1 if a callback was refused or a group does not match."""
    _require_consistent(options)
    if settings.sdk_app_id is None:
        raise WrongSetting("PROJECTOR_SDK_APP_ID is not set; set it to the receiver's")
    wanted = Options(
        url=options.url,
        queries_url=options.queries_url,
        sdk_app_id=settings.sdk_app_id,
        token=next(iter(settings.callback_tokens), None),
        read_token=next((read_token.token for read_token in settings.read_tokens), None),
        callback_path=settings.callback_path,
        rate=options.rate,
        check=not options.no_check and options.vendor is None,
        into_existing=options.into_existing,
        **{name: getattr(options, name) for name in _AMOUNTS},
    )
    try:
        if options.send:
            return _send(options, wanted)
        return _simulate_vendor(options.vendor, wanted) if options.vendor else _print(_simulate(wanted))
    except (Unreachable, OtherGroups) as error:
        raise WrongSetting(str(error)) from None


def _require_consistent(options: argparse.Namespace) -> None:
    if options.lose and options.vendor is None:
        options.refuse("--lose is for --vendor: without the vendor nothing tells what was lost")
    if not options.send and (options.group or options.user):
        options.refuse("--group and --user are for --send")
    if options.send and not options.group:
        options.refuse("--send needs --group")
    if options.send in NEED_USER and not options.user:
        options.refuse(f"--send {options.send} needs --user")


def _simulate(wanted: Options, on_happened: Callable[[Life, Delivery], None] = lambda _, __: None) -> Report:
    with contextlib.ExitStack() as stack:
        on_sent, on_checked = _Bar(stack, "callbacks"), _Bar(stack, "groups checked")
        return asyncio.run(
            simulate(wanted, on_sent=on_sent.advance, on_checked=on_checked.advance, on_happened=on_happened)
        )


def _simulate_vendor(vendor_address: tuple[str, int], wanted: Options) -> int:
    """Send traffic, and serve the vendor's REST API beside it, until Ctrl-C."""
    with serving(vendor_address, sdk_app_id=wanted.sdk_app_id) as vendor:
        status = _print(_simulate(wanted, vendor.happen))
        vendor.import_groups(max(1, wanted.groups // _IMPORTED_PART))
        say(f"{vendor.groups.count()} groups at {vendor.url}, some of which no callback has told of; to reconcile:")
        say(
            f"PROJECTOR_REST_URL={vendor.url} PROJECTOR_REST_ADMIN={ADMINISTRATOR} PROJECTOR_REST_KEY={KEY}"
            " PROJECTOR_REST_SETTLE_S=5 projector reconcile"
        )
        with contextlib.suppress(KeyboardInterrupt):
            vendor.wait()
    return status


def _send(options: argparse.Namespace, wanted: Options) -> int:
    """Send one callback, and print the request and the response; return 1 unless it was acknowledged."""
    callback = compose(options.send, options.group, options.user, now_ms=now_ms())
    url, body, response = asyncio.run(send(wanted, callback))
    position = response.headers.get("projector-position")
    say(f"POST {url}")
    say(body.decode())
    say(f"status {response.status}{f', Projector-Position: {position}' if position else ''}")
    say(response.body.decode(errors="replace"))
    if position:
        base = (wanted.queries_url or wanted.url).rstrip("/")
        note(f"the group: {base}/v1/groups/{quote(options.group, safe='')}?wait_for={position}")
    return 0 if response.status == _OK else 1


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
    for line in lines:
        say(line)
    if report.refusal is not None:
        note(f"projector: stopped, since a callback was refused with {report.refusal}")
    return 1 if report.differences or report.refusal is not None else 0
