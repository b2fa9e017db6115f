"""A reader of server-sent events, written after the specification of `EventSource`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterator


class ServerEvent(NamedTuple):
    """An event as a client sees it; `last_id` is the newest id by then."""

    name: str
    data: Any
    last_id: str


def parse(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Yield events. A frame without data, a heartbeat, is one named `heartbeat`."""
    name, data, last_id, has_comment = "message", [], "", False
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(name, json.loads("\n".join(data)), last_id)
            elif has_comment:
                yield ServerEvent("heartbeat", None, last_id)
            name, data, has_comment = "message", [], False
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "":
                has_comment = True
            case "event":
                name = value
            case "data":
                data.append(value)
            case "id":
                last_id = value


@contextmanager
def stream(url: str, *, last_event_id: str = "", token: str | None = None) -> Iterator[Iterator[ServerEvent]]:
    """Open a stream, and yield its events as they come."""
    headers = {"Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    if token:
        headers["Authorization"] = f"Bearer {token}"
    with httpx2.Client(timeout=60) as client, client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        yield parse(response.iter_lines())


def items(events: Iterator[ServerEvent]) -> Iterator[ServerEvent]:
    """Only messages and notices."""
    return (event for event in events if event.name in ("change", "event", "notice"))
