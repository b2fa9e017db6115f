"""The OpenAPI document, made from the table of routes and the answers' own classes."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from projector import __version__
from projector.feeds.messages import MESSAGES
from projector.http.answers import Event
from projector.http.feed_forms import CLOUD_EVENTS, EVENT_STREAM, JSON, NDJSON
from projector.http.feed_parameters import FEED_PARAMETERS
from projector.http.feed_routes import FEEDS
from projector.http.feeds import FeedRoute
from projector.http.parameters import PARAMETERS
from projector.http.problems import ProblemDetails
from projector.http.routes import ROUTES, Route
from projector.status import ReconciliationStatus, Status

STATUS_PATH: Final = "/v1/status"
RECONCILIATION_PATH: Final = "/v1/reconciliation"
_UNAUTHORIZED: Final = {"401": "The bearer token is missing or wrong"}
_POSITION: Final = {"schema": {"type": "string", "pattern": "^[0-9]+$"}}


def document(*, secured: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document; `secured` if bearer tokens are required."""
    answers = {route.answer for route in (*ROUTES, *FEEDS)}
    answers |= {Status, ReconciliationStatus, ProblemDetails, Event, *MESSAGES}
    answer_types = sorted(answers, key=lambda answer: answer.__name__)
    _, schemas = msgspec.json.schema_components(answer_types, ref_template="#/components/schemas/{name}")
    content: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Group state projector",
            "version": __version__,
            "description": "The state of Tencent Cloud Chat groups, projected from webhook callbacks.",
        },
        "paths": {
            **{route.path: {"get": _operation(route, secured=secured)} for route in ROUTES},
            **{feed.path: {"get": _feed_operation(feed, secured=secured)} for feed in FEEDS},
            STATUS_PATH: {"get": _status_operation(secured=secured)},
            RECONCILIATION_PATH: {"get": _reconciliation_operation(secured=secured)},
        },
        "components": {"schemas": schemas},
    }
    if secured:
        content["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        content["security"] = [{"token": []}]
    return content


def _status_operation(*, secured: bool) -> dict[str, Any]:
    summary = "Get the status"
    problems = {"503": "The database is unavailable", **(_UNAUTHORIZED if secured else {})}
    return {
        "operationId": "getStatus",
        "summary": summary,
        "description": "Positions, lag, counts and complaints, as `projector status --json` prints them.",
        "responses": {
            "200": {
                "description": summary,
                "headers": {"Projector-Position": _POSITION},
                "content": _content("application/json", Status),
            },
            **_described(problems),
        },
    }


def _reconciliation_operation(*, secured: bool) -> dict[str, Any]:
    summary = "Get the newest reconciliation"
    problems = {
        "404": "No run has compared the groups with the REST API yet",
        "503": "The database is unavailable",
        **(_UNAUTHORIZED if secured else {}),
    }
    return {
        "operationId": "getReconciliation",
        "summary": summary,
        "description": "The newest run that compared the groups with the vendor's REST API, and what it found.",
        "responses": {
            "200": {"description": summary, "content": _content("application/json", ReconciliationStatus)},
            **_described(problems),
        },
    }


def _operation(route: Route, *, secured: bool) -> dict[str, Any]:
    path_ids = re.findall(r"{(\w+)}", route.path)
    problems = {
        "400": "A parameter is wrong",
        "503": "The requested position was not reached in time, or the database is unavailable",
        **({"404": "No events for this id, or not a member"} if path_ids else {}),
        **(_UNAUTHORIZED if secured else {}),
    }
    headers = {
        "Projector-Position": _POSITION,
        "ETag": {"schema": {"type": "string"}},
    }
    return {
        "operationId": route.operation_id,
        "summary": route.summary,
        "description": route.description,
        "parameters": [
            {"name": name, "in": "query", **PARAMETERS[name]} for name in (*path_ids, *route.accepted, "If-None-Match")
        ],
        "responses": {
            "200": {
                "description": route.summary,
                "headers": headers,
                "content": _content("application/json", route.answer),
            },
            "304": {"description": "Unchanged since the response with this `ETag`", "headers": headers},
            **_described(problems),
        },
    }


def _feed_operation(feed: FeedRoute, *, secured: bool) -> dict[str, Any]:
    problems = {
        "400": "A parameter is wrong",
        "406": "None of the media types is accepted",
        "409": "The history is not the one that the cursor is from: read everything again",
        "503": "The database is unavailable, or there are too many readers",
        **(_UNAUTHORIZED if secured else {}),
    }
    text: dict[str, Any] = {"schema": {"type": "string"}}
    headers = {
        "Projector-Position": _POSITION,
        "Projector-Cursor": text,
        "Projector-Head": _POSITION,
        "ETag": text,
    }
    names = ["after", "limit", *(["cursor"] if feed.list_cursor else []), "wait_for", "If-None-Match"]
    known = PARAMETERS | FEED_PARAMETERS
    return {
        "operationId": feed.operation_id,
        "summary": feed.summary,
        "description": feed.description,
        "parameters": [
            {"name": name, "in": "query", **known[name]} for name in dict.fromkeys([*names, *FEED_PARAMETERS])
        ],
        "responses": {
            "200": {
                "description": feed.summary,
                "headers": headers,
                "content": {
                    **_content(JSON, feed.answer),
                    NDJSON: text,
                    EVENT_STREAM: text,
                    CLOUD_EVENTS: {"schema": {"type": "array", "items": {"type": "object"}}},
                },
            },
            "304": {"description": "Unchanged since the response with this `ETag`", "headers": headers},
            **_described(problems),
        },
    }


def _described(problems: Mapping[str, str]) -> dict[str, Any]:
    """Return the responses for problems: statuses, and their descriptions."""
    content = _content("application/problem+json", ProblemDetails)
    return {status: {"description": description, "content": content} for status, description in problems.items()}


def _content(media_type: str, answer: type[msgspec.Struct]) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}}
