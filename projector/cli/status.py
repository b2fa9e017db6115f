"""`projector status`: positions, lag and counts, whether or not a server is running."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Final

import httpx2
import msgspec

from projector.bootstrap import check_stores, open_queries, open_stores, read_status
from projector.cli.output import say
from projector.settings import Settings, WrongSetting
from projector.status import Status

_TIMEOUT_S: Final = 30
_UNAUTHORIZED: Final = 401


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("status", help="show positions, lag, counts and the quarantine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--url", help="ask the server at this address instead of the database")
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print the status of the database or of a server; return 1 if the read model is not correct and current."""
    status = _read(settings) if options.url is None else _ask(options.url, settings)
    for line in [msgspec.json.encode(status).decode()] if options.json else _lines(status):
        say(line)
    return 1 if status.complaints else 0


def _read(settings: Settings) -> Status:
    stores = open_stores(settings, read_only=True)
    with closing(stores.events), closing(open_queries(settings)) as queries:
        return read_status(settings, stores, queries, check_stores(stores, queries))


def _ask(url: str, settings: Settings) -> Status:
    """Return the status of the server at `url`. Raises WrongSetting if it does not tell."""
    token = next((read_token.token for read_token in settings.read_tokens), None)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = httpx2.get(f"{url.rstrip('/')}/v1/status", headers=headers, timeout=_TIMEOUT_S)
        if response.status_code == _UNAUTHORIZED:
            raise WrongSetting(f"{url} needs a token; set PROJECTOR_READ_TOKENS to one of the server's")
        return msgspec.json.decode(response.raise_for_status().content, type=Status)
    except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.DecodeError) as error:
        raise WrongSetting(f"{url} does not tell its status: {' '.join(str(error).split())}") from None


def _lines(status: Status) -> list[str]:
    lines = [
        f"events        {status.head}",
        f"last callback {status.last_callback_at or 'none'}",
        f"worker        {'projecting' if status.has_worker else 'none; new events are not projected'}",
    ]
    lines += [
        f"{name:<13} at {projection.position}, {projection.lag_events} behind, {projection.set_aside} set aside"
        for name, projection in status.projections.items()
    ]
    lines.append(f"lag           {status.lag_seconds:.1f} s")
    lines += [f"{name.replace('_', ' '):<13} {count}" for name, count in status.counts.items()]
    lines.append(f"quarantine    {status.quarantine}")
    if status.spool.events:
        lines.append(f"spool         {status.spool.events} events, the oldest for {status.spool.seconds:.0f} s")
    if status.spool.set_aside:
        lines.append(f"spool         {status.spool.set_aside} set aside")
    if status.unfinished_forgettings:
        lines.append(f"forgetting    {status.unfinished_forgettings} users, in progress or interrupted")
    if run := status.reconciliation:
        lines.append(f"reconciling   run {run.run} {run.state}, begun {run.started_at}")
    if status.replay:
        progress = f", {status.replay.done} of {status.replay.total} events" if status.replay.total else ""
        lines.append(f"replay        in progress: {status.replay.phase}{progress}")
    return [*lines, *status.complaints]
