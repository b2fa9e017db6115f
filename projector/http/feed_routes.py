"""The two feeds: their paths, shapes and texts."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.routing import Route

from projector.feeds.feed import Feed
from projector.feeds.log import MAX_BYTES, ChangesEncoder, EventsEncoder, FeedLog, MessageEncoder
from projector.feeds.messages import ChangeMessage, CursorText, NoticeMessage
from projector.http import answers
from projector.http.cursors import Cursor, number
from projector.http.feeds import FeedEndpoint, FeedPage, FeedRoute, Followers
from projector.http.large_responses import LargeResponses
from projector.http.query_runner import QueryRunner
from projector.http.streams import MAX_STREAMS, MAX_STREAMS_PER_TOKEN, StreamLimit

_EVENTS_CURSOR: Final = Cursor("events", number)


def _one_of(*shapes: type[msgspec.Struct]) -> dict[str, Any]:
    return {"oneOf": [{"$ref": f"#/components/schemas/{shape.__name__}"} for shape in shapes]}


class Changes(msgspec.Struct):
    """A page of the changes feed, ordered by position. `cursor` is after everything that was looked at."""

    messages: list[Annotated[msgspec.Raw, Meta(extra_json_schema=_one_of(ChangeMessage, NoticeMessage))]]
    next: Annotated[str | None, Meta(description="The value of `after` for the next page; null if there is none yet.")]
    cursor: CursorText
    head: Annotated[int, Meta(ge=0, description="The position of the newest event.")]
    caught_up: Annotated[bool, Meta(description="Whether there is nothing more at the moment.")]


def _changes(page: FeedPage) -> Changes:
    cursor = str(page.cursor)
    following = None if page.caught_up else cursor
    return Changes([msgspec.Raw(item.data) for item in page.items], following, cursor, page.state.head, page.caught_up)


def _events(page: FeedPage) -> answers.Events:
    following = None if page.caught_up else _EVENTS_CURSOR.encode(page.cursor.position)
    events: list[Any] = [msgspec.Raw(item.data) for item in page.items if not item.is_notice]
    notices: list[Any] = [msgspec.Raw(item.data) for item in page.items if item.is_notice]
    return answers.Events(events, following, notices)


CHANGES: Final = FeedRoute(
    path="/v1/changes",
    operation_id="listChanges",
    summary="List what events changed in groups and rosters",
    description="By position: a page, or a stream of server-sent events. See docs/following.md.",
    answer=Changes,
    body=_changes,
    event_name="change",
    cloud_event="im.group.changed",
)
EVENTS: Final = FeedRoute(
    path="/v1/events",
    operation_id="listEvents",
    summary="List the events of all groups",
    description="By position: a page, or a stream of server-sent events. See docs/following.md.",
    answer=answers.Events,
    body=_events,
    event_name="event",
    cloud_event="im.group.event",
    list_cursor=_EVENTS_CURSOR,
)
FEEDS: Final = (CHANGES, EVENTS)


def encoder_of(feed: FeedRoute) -> MessageEncoder:
    return ChangesEncoder() if feed is CHANGES else EventsEncoder(answers.event)


def feed_routes(runner: QueryRunner, large_responses: LargeResponses, *, source: str, processes: int) -> list[Route]:
    """Return the routes of the feeds, in one of so many processes; `source` names the app in CloudEvents."""
    followers = Followers(
        runner.head,
        runner.cursors,
        runner.wait_for,
        StreamLimit(max(1, MAX_STREAMS // processes), max(1, MAX_STREAMS_PER_TOKEN // processes)),
        source,
        runner.run,
    )
    return [
        Route(
            feed.path,
            FeedEndpoint(
                feed,
                Feed(
                    runner.store,
                    FeedLog(runner.store, runner.queries, encoder_of(feed), MAX_BYTES // 2 // processes),
                    runner.run,
                ),
                followers,
                large_responses,
            ),
            methods=["GET"],
        )
        for feed in FEEDS
    ]
