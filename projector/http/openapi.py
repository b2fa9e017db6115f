"""The OpenAPI document, made from the answers' own classes."""

from __future__ import annotations

from typing import Any

import msgspec

from projector import __version__
from projector.http import answers
from projector.http.parameters import DEFAULT_LIMIT, MAX_LIMIT
from projector.http.problems import ProblemDetails

_PATH_ID = {"type": "string", "minLength": 1}
_TIME = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}]}
_PAGE = ("limit", "cursor")
_WHEN = ("at", "position")

_PARAMETERS: dict[str, dict[str, Any]] = {
    "group_id": {"in": "path", "required": True, "schema": _PATH_ID, "description": "Percent-encoded, `/` too."},
    "user_id": {"in": "path", "required": True, "schema": _PATH_ID, "description": "Percent-encoded, `/` too."},
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}},
    "cursor": {"schema": {"type": "string"}, "description": "`next` of the page before; opaque."},
    "after": {
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "description": "Only events behind this position.",
    },
    "wait_for": {
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "description": "Wait, 2 s at most, until the read model has reached this position.",
    },
    "at": {
        "schema": _TIME,
        "description": "As it was then by effective time, from all that is known now. RFC 3339, or ms since 1970.",
    },
    "position": {
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "description": "As it stood when the event at this position had been applied. Excludes `at`.",
    },
    "from": {"schema": _TIME, "description": "Only what happened after this effective time."},
    "to": {"schema": _TIME, "description": "Only what happened up to this effective time, inclusive."},
    "type": {"schema": {"type": "string"}, "description": "The vendor's group type, e.g. `Public`."},
    "status": {"schema": {"type": "string", "enum": ["active", "dismissed"]}},
    "is_full": {"schema": {"type": "boolean"}},
    "q": {"schema": {"type": "string"}, "description": "A prefix of the group's name or id, to the letter."},
    "If-None-Match": {"in": "header", "schema": {"type": "string"}, "description": "An `ETag` seen before."},
}

_ROUTES: dict[str, tuple[str, str, type[msgspec.Struct], tuple[str, ...]]] = {
    "/v1/groups": ("listGroups", "Groups, by id", answers.Groups, ("type", "status", "is_full", "q", *_PAGE)),
    "/v1/groups/{group_id}": ("getGroup", "One group", answers.Group, ("group_id", *_WHEN)),
    "/v1/groups/{group_id}/members": (
        "listMembers",
        "A roster, by user id",
        answers.Members,
        ("group_id", *_WHEN, *_PAGE),
    ),
    "/v1/groups/{group_id}/members/{user_id}": (
        "getMember",
        "One member; 404 if the user is not one",
        answers.Member,
        ("group_id", "user_id", *_WHEN),
    ),
    "/v1/groups/{group_id}/members/{user_id}/history": (
        "listMemberHistory",
        "Every join and exit of a user in a group with the callback behind it, newest first",
        answers.History,
        ("group_id", "user_id", *_PAGE),
    ),
    "/v1/groups/{group_id}/diff": (
        "getDiff",
        "What changed in a group between two moments; its members by user id",
        answers.Diff,
        ("group_id", "from", "to", *_PAGE),
    ),
    "/v1/groups/{group_id}/events": (
        "listGroupEvents",
        "The history of one group, by position",
        answers.Events,
        ("group_id", "from", "to", *_PAGE),
    ),
    "/v1/users/{user_id}/groups": (
        "listUserGroups",
        "The groups a user is a member of, by group id",
        answers.UserGroups,
        ("user_id", *_WHEN, *_PAGE),
    ),
    "/v1/events": ("listEvents", "The history of all groups, by position", answers.Events, ("after", *_PAGE)),
}


def document(*, secured: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document; `secured` says that bearer tokens are required."""
    answer_types = sorted({route[2] for route in _ROUTES.values()} | {ProblemDetails}, key=lambda one: one.__name__)
    _, components = msgspec.json.schema_components(answer_types, ref_template="#/components/schemas/{name}")
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Group state projector",
            "version": __version__,
            "description": "Rosters, profiles and fullness of chat groups, projected from webhook callbacks.",
        },
        "paths": {path: {"get": _operation(*route, secured=secured)} for path, route in _ROUTES.items()},
        "components": {"schemas": components},
    }
    if secured:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
    return described


def _operation(
    operation_id: str, summary: str, answer: type[msgspec.Struct], names: tuple[str, ...], *, secured: bool
) -> dict[str, Any]:
    problems = {
        "400": "A parameter is wrong",
        "503": "The position asked for was not reached, or the data cannot be read",
    }
    if "group_id" in names or "user_id" in names:
        problems["404"] = "Never heard of, or not a member"
    if secured:
        problems["401"] = "The bearer token is missing or wrong"
    position = {"Projector-Position": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}
    headers = position | {"ETag": {"schema": {"type": "string"}}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "parameters": [
            {"name": name, "in": "query", **_PARAMETERS[name]} for name in (*names, "wait_for", "If-None-Match")
        ],
        "responses": {
            "200": {"description": summary, "headers": headers, "content": _json("application/json", answer)},
            "304": {"description": "Not changed since `If-None-Match`", "headers": headers},
            **{
                status: {"description": why, "content": _json("application/problem+json", ProblemDetails)}
                for status, why in problems.items()
            },
        },
    }


def _json(media_type: str, answer: type[msgspec.Struct]) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}}
