"""Answers out: read-only routes over the read model, and over the history."""

from __future__ import annotations

import asyncio
import time
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from projector.http import answers
from projector.http.parameters import Parameters, encode_cursor, segment
from projector.http.problems import Problem
from projector.read_model import GroupFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.read_model import GroupState, Queries, Snapshot

_LONGEST_WAIT_S: Final = 2.0
_LOOK_AGAIN_S: Final = 0.005
_PAGE: Final = ("limit", "cursor")

_Item = TypeVar("_Item")
_group_id: Final = attrgetter("group_id")
_user_id: Final = attrgetter("user_id")
_encode: Final = msgspec.json.Encoder().encode


class Questions:
    """The `/v1` routes. Every answer comes from one snapshot of the read model and carries its position."""

    def __init__(self, store: EventStore, queries: Queries) -> None:
        self._store = store
        self._queries = queries

    def routes(self) -> list[Route]:
        """Return the routes; ids in paths stay percent-encoded until they are read."""
        return [
            Route("/v1/groups", self.groups),
            Route("/v1/groups/{group_id}", self.group),
            Route("/v1/groups/{group_id}/members", self.members),
            Route("/v1/groups/{group_id}/members/{user_id}", self.member),
            Route("/v1/groups/{group_id}/events", self.group_events),
            Route("/v1/users/{user_id}/groups", self.user_groups),
            Route("/v1/events", self.events),
        ]

    async def groups(self, request: Request) -> Response:
        """List groups by id, filtered by type, status, fullness and a prefix of name or id."""
        parameters = Parameters(request, ("type", "status", "is_full", "q", *_PAGE))
        is_full = parameters.choice("is_full", ("true", "false"))
        condition = GroupFilter(
            type=parameters.text("type"),
            status=parameters.choice("status", ("active", "dismissed")),
            is_full=None if is_full is None else is_full == "true",
            prefix=parameters.text("q"),
        )
        after, limit = parameters.cursor("groups"), parameters.limit()

        def answer(snapshot: Snapshot) -> answers.Groups:
            page, following = _page(snapshot.groups(condition, after, limit + 1), limit, "groups", _group_id)
            return answers.Groups([answers.group(state) for state in page], following)

        return await self._answer(request, parameters, answer)

    async def group(self, request: Request) -> Response:
        """Answer one group."""
        group_id = segment(request, "group_id")
        return await self._answer(
            request, Parameters(request, ()), lambda snapshot: answers.group(_known(snapshot, group_id))
        )

    async def members(self, request: Request) -> Response:
        """List a group's members by user id."""
        group_id, parameters = segment(request, "group_id"), Parameters(request, _PAGE)
        after, limit = parameters.cursor("members"), parameters.limit()

        def answer(snapshot: Snapshot) -> answers.Members:
            state = _known(snapshot, group_id)
            page, following = _page(snapshot.members(group_id, after, limit + 1), limit, "members", _user_id)
            return answers.members(state, page, following)

        return await self._answer(request, parameters, answer)

    async def member(self, request: Request) -> Response:
        """Answer one member."""
        group_id, user_id = segment(request, "group_id"), segment(request, "user_id")

        def answer(snapshot: Snapshot) -> answers.Member:
            if (found := snapshot.member(group_id, user_id)) is None:
                _known(snapshot, group_id)
                raise Problem(404, "This user is not a member of this group.")
            return answers.member(found)

        return await self._answer(request, Parameters(request, ()), answer)

    async def user_groups(self, request: Request) -> Response:
        """List the groups a user is a member of, by group id."""
        user_id, parameters = segment(request, "user_id"), Parameters(request, _PAGE)
        after, limit = parameters.cursor("user_groups"), parameters.limit()

        def answer(snapshot: Snapshot) -> answers.UserGroups:
            found = snapshot.groups_of(user_id, after, limit + 1)
            if not found and not snapshot.knows_user(user_id):
                raise Problem(404, "This user was never heard of.")
            page, following = _page(found, limit, "user_groups", _group_id)
            return answers.UserGroups(user_id, [answers.user_group(row) for row in page], following)

        return await self._answer(request, parameters, answer)

    async def group_events(self, request: Request) -> Response:
        """List the events of one group, by position."""
        group_id, parameters = segment(request, "group_id"), Parameters(request, _PAGE)
        after, limit = parameters.number_cursor("group_events"), parameters.limit()

        def answer(_: Snapshot) -> answers.Events:
            found = self._store.read_group(group_id, after, limit + 1)
            if not found and not self._store.read_group(group_id, 0, 1):
                raise Problem(404, "This group was never heard of.")
            return _events(found, limit, "group_events", after + limit)

        return await self._answer(request, parameters, answer)

    async def events(self, request: Request) -> Response:
        """List the events of all groups, by position."""
        parameters = Parameters(request, ("after", *_PAGE))
        after = max(parameters.position("after") or 0, parameters.number_cursor("events"))
        limit = parameters.limit()

        def answer(_: Snapshot) -> answers.Events:
            found = self._store.read(after, limit + 1)
            return _events(found, limit, "events", found[limit - 1].position if len(found) > limit else 0)

        return await self._answer(request, parameters, answer)

    async def _answer(self, request: Request, parameters: Parameters, answer: Callable[[Snapshot], Any]) -> Response:
        await self._reach(parameters.position("wait_for") or 0)
        with self._queries.snapshot() as snapshot:
            position = {"Projector-Position": str(_reached(snapshot))}
            try:
                found = answer(snapshot)
            except Problem as problem:
                raise Problem(problem.status_code, problem.detail, position) from None
        body = _encode(found)
        etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        headers = position | {"ETag": etag, "Cache-Control": "private, no-cache"}
        if following := getattr(found, "next", None):
            headers["Link"] = f'<{_next_address(request, following)}>; rel="next"'
        if _matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    async def _reach(self, wanted: int) -> None:
        if not wanted:
            return
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while True:
            with self._queries.snapshot() as snapshot:
                reached = _reached(snapshot)
            if reached >= wanted:
                return
            if time.monotonic() > deadline:
                raise Problem(
                    503,
                    f"The read model is at position {reached} and did not reach {wanted} in time.",
                    {"Retry-After": "1", "Projector-Position": str(reached)},
                )
            await asyncio.sleep(_LOOK_AGAIN_S)


def _reached(snapshot: Snapshot) -> int:
    return min(snapshot.positions().values(), default=0)


def _known(snapshot: Snapshot, group_id: str) -> GroupState:
    if (state := snapshot.group(group_id)) is None:
        raise Problem(404, "This group was never heard of.")
    return state


def _page(
    found: Sequence[_Item], limit: int, kind: str, key: Callable[[_Item], str]
) -> tuple[Sequence[_Item], str | None]:
    page = found[:limit]
    return page, encode_cursor(kind, key(page[-1])) if len(found) > limit else None


def _events(found: Sequence[Recorded], limit: int, kind: str, last: int) -> answers.Events:
    following = encode_cursor(kind, last) if len(found) > limit else None
    return answers.Events([answers.event(recorded) for recorded in found[:limit]], following)


def _next_address(request: Request, following: str) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in ("cursor", "wait_for")]
    return f"{request.scope['path']}?{urlencode([*kept, ('cursor', following)])}"


def _matches(if_none_match: str | None, etag: str) -> bool:
    if not if_none_match:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
