"""The forms in which a feed is sent, chosen by the header `Accept`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from starlette.types import Scope

from projector.clock import to_rfc3339
from projector.feeds.feed import Item
from projector.http.problems import Problem

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"
CLOUD_EVENTS: Final = "application/cloudevents-batch+json"
FORMS: Final = (JSON, NDJSON, EVENT_STREAM, CLOUD_EVENTS)


def accepted_form(scope: Scope) -> str:
    """Return the media type that a client prefers. Raises Problem if it accepts none."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    ranges = [parsed for text in ",".join(values).split(",") if text.strip() and (parsed := _media_range(text))]
    if not values:
        return JSON
    qualities = {form: max((quality for name, quality in ranges if name in _ranges(form)), default=0) for form in FORMS}
    best = max(FORMS, key=lambda form: qualities[form])
    if not qualities[best]:
        raise Problem(406, f"The header 'Accept' must include one of {', '.join(FORMS)}.", {"Vary": "Accept"})
    return best


def _ranges(form: str) -> tuple[str, ...]:
    """Return the ranges that mean a form; `*/*` means JSON."""
    return (form, "application/*", "*/*") if form == JSON else (form,)


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                return name.lower(), float(value)
            except ValueError:
                return name.lower(), 0
    return name.lower(), 1


def lines(items: Sequence[Item]) -> bytes:
    """Return one message per line."""
    return b"".join(_one_line(item.data) + b"\n" for item in items)


def _one_line(data: bytes) -> bytes:
    # Line breaks can only be between the tokens of a body: in its strings they are escaped.
    return data.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in data or b"\r" in data else data


class CloudEvents(NamedTuple):
    """Messages as CloudEvents 1.0 of this type; `source` names the app."""

    type: str
    source: str

    def batch(self, items: Sequence[Item]) -> bytes:
        """Return a batch of events, one per message."""
        return b"[" + b",".join(map(self._event, items)) + b"]"

    def _event(self, item: Item) -> bytes:
        return msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": str(item.cursor),
                "source": self.source,
                "type": "im.group.notice" if item.is_notice else self.type,
                **({"subject": item.group_id} if item.group_id else {}),
                "time": to_rfc3339(item.at),
                "datacontenttype": JSON,
                "data": msgspec.Raw(item.data),
            }
        )


class ServerSentEvents(NamedTuple):
    """The frames of a stream of server-sent events, in which messages are events of this name."""

    name: str

    def begin(self, after: str, head: int) -> bytes:
        return b"retry: 3000\n" + self.frame("hello", {"after": after, "head": head})

    def items(self, items: Sequence[Item]) -> bytes:
        return b"".join(map(self._item, items))

    def frame(self, name: str, data: object) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))

    def caught_up(self, position: int, lag_ms: int) -> bytes:
        return self.frame("caught-up", {"position": position, "lag_seconds": lag_ms / 1000})

    def reset(self, reason: str) -> bytes:
        return self.frame("reset", {"type": "history-changed", "detail": reason})

    def heartbeat(self, cursor: str) -> bytes:
        """Return a frame that moves the reader on, without an event."""
        return b"id: %b\n: heartbeat\n\n" % cursor.encode()

    def _item(self, item: Item) -> bytes:
        name = "notice" if item.is_notice else self.name
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(item.cursor).encode(), name.encode(), _one_line(item.data))
