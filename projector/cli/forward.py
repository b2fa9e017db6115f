"""`projector forward`: a feed, delivered to an endpoint as Standard Webhooks 1.0."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import structlog

from projector.bootstrap import open_events, open_forward_state, open_queries
from projector.cli.output import note
from projector.event_store import EventStore
from projector.feeds.cursor import Cursors, FeedCursor, HistoryChanged, parse_cursor
from projector.feeds.feed import Feed, Read, read_state
from projector.feeds.log import FeedLog
from projector.feeds.selection import Selection
from projector.forwarding.forwarder import EndpointGone, Forwarder
from projector.forwarding.state import ForwardState
from projector.http.feed_parameters import LATEST
from projector.http.feed_routes import CHANGES, EVENTS, encoder_of
from projector.read_model import Queries
from projector.settings import Settings, WrongSetting

_FEEDS: Final = {"changes": CHANGES, "events": EVENTS}
_EVERYTHING: Final = Selection()

log = structlog.get_logger("projector")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("forward", help="deliver changes to an endpoint, signed as Standard Webhooks")
    parser.add_argument(
        "--to", required=True, metavar="URL", type=_endpoint, help="the endpoint, https but on loopback"
    )
    parser.add_argument("--feed", choices=[*_FEEDS], default="changes", help="what is delivered (default: changes)")
    parser.add_argument(
        "--after", type=_after, metavar="CURSOR", help="begin after this cursor, position or `latest`, wherever it was"
    )
    parser.add_argument("--state", metavar="FILE", help="keep the state in this file instead of the database")
    parser.add_argument("--skip", metavar="GROUP", help="give up what is pending for this group, then go on")
    parser.set_defaults(run=run, needs_database=True)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Deliver until SIGTERM or Ctrl-C; return 1 if the endpoint is gone or the history has changed."""
    if not settings.forward_secrets:
        raise WrongSetting("PROJECTOR_FORWARD_SECRET is not set; set it to the secret of the endpoint, whsec_…")
    name = f"{options.feed} {options.to}"
    with (
        closing(open_events(settings)) as store,
        closing(open_queries(settings)) as queries,
        open_forward_state(settings, name, options.state) as opened,
    ):
        state = ForwardState(opened, name)
        if options.skip is not None:
            note(f"gave up {state.skip(options.skip)} messages of group {options.skip}")
        try:
            asyncio.run(_forward(options, settings, store, queries, state))
        except EndpointGone as error:
            note(f"projector: {error}")
            return 1
        except HistoryChanged as error:
            note(f"projector: the receiver must read everything again, since {error}; then start with --after latest")
            return 1
    return 0


async def _forward(
    options: argparse.Namespace, settings: Settings, store: EventStore, queries: Queries, state: ForwardState
) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    feed = Feed(store, FeedLog(store, queries, encoder_of(_FEEDS[options.feed])), _run)
    async with httpx2.AsyncClient(follow_redirects=False, headers={"user-agent": "group-state-projector"}) as client:
        forwarder = Forwarder(state, partial(_read, feed, store, queries), client, options.to, settings.forward_secrets)
        cursor = await _run(_first_cursor, options, store, queries, state, is_short=False)
        log.info("forwarding", to=options.to, feed=options.feed, after=str(cursor), stop_with="Ctrl-C")
        await forwarder.run(cursor, stopping)
    log.info("stopped")


async def _read(feed: Feed, store: EventStore, queries: Queries, cursor: FeedCursor) -> Read:
    return await feed.read(cursor, await _run(read_state, store, queries, is_short=True), _EVERYTHING)


async def _run(work: Callable[..., Any], *arguments: Any, is_short: bool) -> Any:  # noqa: ARG001
    return await asyncio.to_thread(work, *arguments)


def _first_cursor(options: argparse.Namespace, store: EventStore, queries: Queries, state: ForwardState) -> FeedCursor:
    """Return the given cursor, else the stored one, else the beginning. Raises HistoryChanged."""
    now, cursors = read_state(store, queries), Cursors(store)
    after = options.after or state.cursor() or "0"
    if after == LATEST:
        return cursors.at(now.reached, now.notice)
    return cursors.of(parse_cursor(after), now.notice, now.history_change)


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not an https URL; http is only for this machine")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _after(text: str) -> str:
    try:
        if text != LATEST:
            parse_cursor(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no cursor, position or `latest`") from None
    return text
