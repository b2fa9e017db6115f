"""Answers out: read-only routes over the read model, and over the history."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from hashlib import blake2b
from itertools import islice
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.responses import Response
from starlette.routing import Route

from projector.event_store import MAX_BATCH_BYTES, group_history, history
from projector.http import answers
from projector.http.parameters import NOW, Parameters, encode_cursor, segment
from projector.http.problems import Problem
from projector.http.response_cache import Answer, ResponseCache, matches
from projector.read_model.group_filter import GroupFilter
from projector.time_travel.cut import Cut
from projector.time_travel.diff import changed_members
from projector.time_travel.past_group import PastGroup
from projector.time_travel.past_groups import PastGroups
from projector.time_travel.span import Span, events_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from starlette.requests import Request

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.read_model import Queries
    from projector.read_model.groups import Groups, GroupState
    from projector.read_model.query_session import QuerySession

_MAX_WAIT_S: Final = 2.0
_POLL_S: Final = 0.005
_PAGE: Final = ("limit", "cursor")
_WHEN: Final = ("at", "position")

_Item = TypeVar("_Item")
_group_id: Final = attrgetter("group_id")
_user_id: Final = attrgetter("user_id")
_changed_user: Final = itemgetter(0)
_encode: Final = msgspec.json.Encoder().encode


class QueryEndpoints:
    """The `/v1` routes. Every answer comes from one session of the read model and carries its position.

    Answers are found by so many `threads`; by none, if the read model answers at once.
    """

    def __init__(self, store: EventStore, queries: Queries, threads: int = 0) -> None:
        self.remembered = ResponseCache(queries.version)
        self._store = store
        self._queries = queries
        self._threads = CapacityLimiter(threads) if threads else None

    def routes(self) -> list[Route]:
        """Return the routes; ids in paths stay percent-encoded until they are read."""
        return [
            Route("/v1/groups", self.groups),
            Route("/v1/groups/{group_id}", self.group),
            Route("/v1/groups/{group_id}/members", self.members),
            Route("/v1/groups/{group_id}/members/{user_id}", self.member),
            Route("/v1/groups/{group_id}/members/{user_id}/history", self.member_history),
            Route("/v1/groups/{group_id}/events", self.group_events),
            Route("/v1/groups/{group_id}/diff", self.diff),
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

        def answer(session: QuerySession) -> answers.Groups:
            page, following = _page(session.groups(condition, after, limit + 1), limit, "groups", _group_id)
            return answers.Groups([answers.group(state) for state in page], following)

        return await self._answer(request, parameters, answer)

    async def group(self, request: Request) -> Response:
        """Answer one group, now or at an earlier moment."""
        group_id, parameters = segment(request, "group_id"), Parameters(request, _WHEN)
        return await self._answer_then(
            request, parameters, lambda groups: answers.group(_known(groups, group_id, parameters))
        )

    async def members(self, request: Request) -> Response:
        """List a group's members by user id, now or at an earlier moment."""
        group_id, parameters = segment(request, "group_id"), Parameters(request, (*_WHEN, *_PAGE))
        after, limit = parameters.cursor("members"), parameters.limit()

        def answer(groups: Groups) -> answers.Members:
            state = _known(groups, group_id, parameters)
            page, following = _page(groups.members(group_id, after, limit + 1), limit, "members", _user_id)
            return answers.members(state, page, following)

        return await self._answer_then(request, parameters, answer)

    async def member(self, request: Request) -> Response:
        """Answer one member, now or at an earlier moment."""
        group_id, user_id = segment(request, "group_id"), segment(request, "user_id")
        parameters = Parameters(request, _WHEN)

        def answer(groups: Groups) -> answers.Member:
            if (found := groups.member(group_id, user_id)) is None:
                _known(groups, group_id, parameters)
                raise Problem(404, f"This user {_was(parameters)} not a member of this group.")
            return answers.member(found)

        return await self._answer_then(request, parameters, answer)

    async def user_groups(self, request: Request) -> Response:
        """List the groups a user is a member of, by group id, now or at an earlier moment."""
        user_id, parameters = segment(request, "user_id"), Parameters(request, (*_WHEN, *_PAGE))
        after, limit = parameters.cursor("user_groups"), parameters.limit()

        def answer(groups: Groups) -> answers.UserGroups:
            found = groups.groups_of(user_id, after, limit + 1)
            if not found and not groups.knows_user(user_id):
                raise Problem(404, f"This user {_never(parameters)} heard of.")
            page, following = _page(found, limit, "user_groups", _group_id)
            return answers.UserGroups(user_id, [answers.user_group(row) for row in page], following)

        return await self._answer_then(request, parameters, answer)

    async def member_history(self, request: Request) -> Response:
        """List every join and exit of a user in a group, and the group's dismissals, newest first."""
        group_id, user_id = segment(request, "group_id"), segment(request, "user_id")
        parameters = Parameters(request, _PAGE)
        before, limit = parameters.moment_cursor("history"), parameters.limit()

        def answer(session: QuerySession) -> answers.History:
            if not session.past.knows_member(group_id, user_id):
                raise Problem(404, "This user was never heard of in this group.")
            found = session.past.changes(group_id, user_id, before, limit + 1)
            following = encode_cursor("history", "{},{}".format(*found[limit - 1][0])) if len(found) > limit else None
            events = [(change, self._store.read(position - 1, 1)) for (_, position), change in found[:limit]]
            return answers.History([answers.change(what, recorded) for what, (recorded,) in events], following)

        return await self._answer(request, parameters, answer)

    async def diff(self, request: Request) -> Response:
        """Answer what changed in a group between two moments: its fields, and its members by user id."""
        group_id, parameters = segment(request, "group_id"), Parameters(request, ("from", "to", *_PAGE))
        start, end = parameters.span()
        after, limit = parameters.cursor("diff"), parameters.limit()

        def answer(session: QuerySession) -> answers.Diff:
            span = _cuts(session, start, end)
            earlier, later = (PastGroup(self._store, session.past, group_id, cut) for cut in span)
            if (state := later.state()) is None:
                raise Problem(404, "This group was not heard of by then.")
            changed = list(islice(changed_members(earlier, later, after), limit + 1))
            page, following = _page(changed, limit, "diff", _changed_user)
            return answers.diff(earlier.state(), state, page, following)

        return await self._answer(request, parameters, answer)

    async def group_events(self, request: Request) -> Response:
        """List the events of one group, by position; of a span of time, if that is given."""
        group_id, parameters = segment(request, "group_id"), Parameters(request, ("from", "to", *_PAGE))
        after, limit = parameters.number_cursor("group_events"), parameters.limit()
        start, end = parameters.span()

        def answer(session: QuerySession) -> answers.Events:
            if (start, end) == (None, None):
                found = group_history(self._store, group_id, after, limit + 1)
            else:
                span = _cuts(session, start, end)
                found = events_between(self._store, session.past, group_id, span, after)
            page, is_last = _events(found, limit)
            if not page and not self._store.read_group(group_id, 0, 1):
                raise Problem(404, "This group was never heard of.")
            following = None if is_last else encode_cursor("group_events", page[-1].version)
            return answers.Events([answers.event(recorded) for recorded in page], following)

        return await self._answer(request, parameters, answer, from_store=True)

    async def events(self, request: Request) -> Response:
        """List the events of all groups, by position."""
        parameters = Parameters(request, ("after", *_PAGE))
        after = max(parameters.position("after") or 0, parameters.number_cursor("events"))
        limit = parameters.limit()

        def answer(_: QuerySession) -> answers.Events:
            page, is_last = _events(history(self._store, after, limit + 1), limit)
            following = None if is_last else encode_cursor("events", page[-1].position)
            return answers.Events([answers.event(recorded) for recorded in page], following)

        return await self._answer(request, parameters, answer, from_store=True)

    async def _answer_then(self, request: Request, parameters: Parameters, answer: Callable[[Groups], Any]) -> Response:
        """Answer from the moment that is asked for."""
        when = parameters.when()

        def answer_then(session: QuerySession) -> Any:
            if when == NOW:
                return answer(session)
            reached = _reached(session)
            cut = Cut(reached if when.position is None else when.position, when.at)
            return answer(PastGroups(self._store, session.past, cut))

        return await self._answer(request, parameters, answer_then, reach=when.position or 0)

    async def _answer(
        self,
        request: Request,
        parameters: Parameters,
        answer: Callable[[QuerySession], Any],
        *,
        reach: int = 0,
        from_store: bool = False,
    ) -> Response:
        await self._reach(max(reach, parameters.position("wait_for") or 0))
        version = None if from_store else self.remembered.version()
        found, body, position = await self._found(partial(self._look, answer))
        etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        headers = position | {"ETag": etag, "Cache-Control": "private, no-cache"}
        if following := getattr(found, "next", None):
            headers["Link"] = f'<{_next_address(request, following)}>; rel="next"'
        of_body = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        self.remembered.keep(request.scope, version, Answer(etag, body, _encoded(of_body), _encoded(headers)))
        if matches(request.headers.get("if-none-match", ""), etag):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers | of_body)

    def _look(self, answer: Callable[[QuerySession], Any]) -> tuple[Any, bytes, dict[str, str]]:
        with self._queries.session() as session:
            position = {"Projector-Position": str(_reached(session))}
            try:
                found = answer(session)
            except Problem as problem:
                raise Problem(problem.status_code, problem.detail, position) from None
        return found, _encode(found), position

    def _position(self) -> int:
        with self._queries.session() as session:
            return _reached(session)

    async def _found(self, look: Callable[[], _Item]) -> _Item:
        return look() if self._threads is None else await to_thread.run_sync(look, limiter=self._threads)

    async def _reach(self, wanted: int) -> None:
        if not wanted:
            return
        deadline = time.monotonic() + _MAX_WAIT_S
        while True:
            reached = await self._found(self._position)
            if reached >= wanted:
                return
            if time.monotonic() > deadline:
                raise Problem(
                    503,
                    f"The read model is at position {reached} and did not reach {wanted} in time.",
                    {"Retry-After": "1", "Projector-Position": str(reached)},
                )
            await asyncio.sleep(_POLL_S)


def _reached(session: QuerySession) -> int:
    return min(session.positions().values(), default=0)


def _cuts(session: QuerySession, start: int | None, end: int | None) -> Span:
    """Return what had happened by two effective times in ms: None is before everything, and now."""
    reached = _reached(session)
    return Span(Cut(reached, -1 if start is None else start), Cut(reached, end))


def _known(groups: Groups, group_id: str, parameters: Parameters) -> GroupState:
    if (state := groups.group(group_id)) is None:
        raise Problem(404, f"This group {_never(parameters)} heard of.")
    return state


def _never(parameters: Parameters) -> str:
    return "was never" if parameters.when() == NOW else "was not yet"


def _was(parameters: Parameters) -> str:
    return "is" if parameters.when() == NOW else "then was"


def _page(
    found: Sequence[_Item], limit: int, kind: str, key: Callable[[_Item], str]
) -> tuple[Sequence[_Item], str | None]:
    page = found[:limit]
    return page, encode_cursor(kind, key(page[-1])) if len(found) > limit else None


def _events(found: Iterable[Recorded], limit: int) -> tuple[list[Recorded], bool]:
    """Return a page, of fewer if they are large, and whether it is the last."""
    page: list[Recorded] = []
    size = 0
    for recorded in found:
        if len(page) == limit or size > MAX_BATCH_BYTES:
            return page, False
        page.append(recorded)
        size += len(recorded.event.callback)
    return page, True


def _next_address(request: Request, following: str) -> str:
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in ("cursor", "wait_for")]
    return f"{request.scope['path']}?{urlencode([*kept, ('cursor', following)])}"


def _encoded(headers: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
