"""The queries of `/v1`: one table, from which routing, the accepted parameters and the OpenAPI document are read."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import msgspec

from projector.http import answers
from projector.http.cursors import Cursor, moment, number
from projector.http.parameters import Parameters
from projector.http.queries import QueryEndpoints
from projector.read_model import shapes
from projector.read_model.query_session import QuerySession

Endpoint: TypeAlias = Callable[[QueryEndpoints, QuerySession, Parameters], msgspec.Struct | msgspec.Raw]

_PAGE: Final = ("limit", "cursor")
_WHEN: Final = ("at", "position")
_SPAN: Final = ("from", "to")


class Route(NamedTuple):
    """A path and its endpoint. `parameters` are those of the query string; every route also accepts `wait_for`.

    With `is_followed`, the answer links to the changes that follow it. `is_cached` is false if the answer also depends
    on events that the read model has not reached. `is_short` means that a short page of the current state takes less
    than a millisecond.
    """

    path: str
    endpoint: Endpoint
    parameters: tuple[str, ...]
    answer: type[msgspec.Struct]
    operation_id: str
    summary: str
    description: str = ""
    cursor: Cursor | None = None
    is_cached: bool = True
    is_short: bool = False
    is_followed: bool = False

    @property
    def accepted(self) -> tuple[str, ...]:
        """The names of the query parameters."""
        return (*self.parameters, "wait_for")


ROUTES: Final = (
    Route(
        path="/v1/groups",
        endpoint=QueryEndpoints.groups,
        parameters=("type", "status", "is_full", "q", *_PAGE),
        answer=answers.Groups,
        operation_id="listGroups",
        summary="List groups",
        description="Ordered by group id.",
        cursor=Cursor("groups"),
    ),
    Route(
        path="/v1/groups/{group_id}",
        endpoint=QueryEndpoints.group,
        parameters=_WHEN,
        answer=shapes.Group,
        operation_id="getGroup",
        summary="Get a group",
        description="The current state, or that of an earlier moment.",
        is_short=True,
        is_followed=True,
    ),
    Route(
        path="/v1/groups/{group_id}/members",
        endpoint=QueryEndpoints.members,
        parameters=(*_WHEN, *_PAGE),
        answer=answers.Members,
        operation_id="listMembers",
        summary="List the members of a group",
        description="Ordered by user id; the current members, or those of an earlier moment.",
        cursor=Cursor("members"),
        is_short=True,
        is_followed=True,
    ),
    Route(
        path="/v1/groups/{group_id}/members/{user_id}",
        endpoint=QueryEndpoints.member,
        parameters=_WHEN,
        answer=shapes.Member,
        operation_id="getMember",
        summary="Get a member of a group",
        description="404 if the user is not a member, or was not at the requested moment.",
        is_short=True,
    ),
    Route(
        path="/v1/groups/{group_id}/members/{user_id}/history",
        endpoint=QueryEndpoints.member_history,
        parameters=_PAGE,
        answer=answers.History,
        operation_id="listMemberHistory",
        summary="List the joins and exits of a user in a group",
        description="With the dismissals of the group, each with its callback, newest first by effective time.",
        cursor=Cursor("history", moment),
    ),
    Route(
        path="/v1/groups/{group_id}/events",
        endpoint=QueryEndpoints.group_events,
        parameters=(*_SPAN, *_PAGE),
        answer=answers.Events,
        operation_id="listGroupEvents",
        summary="List the events of a group",
        description="Ordered by position.",
        cursor=Cursor("group_events", number),
        is_cached=False,
    ),
    Route(
        path="/v1/groups/{group_id}/diff",
        endpoint=QueryEndpoints.diff,
        parameters=(*_SPAN, *_PAGE),
        answer=answers.Diff,
        operation_id="getDiff",
        summary="Compare a group at two moments",
        description="The fields that differ, and the members that differ, ordered by user id.",
        cursor=Cursor("diff"),
    ),
    Route(
        path="/v1/users/{user_id}/groups",
        endpoint=QueryEndpoints.user_groups,
        parameters=(*_WHEN, *_PAGE),
        answer=answers.UserGroups,
        operation_id="listUserGroups",
        summary="List the groups of a user",
        description="Ordered by group id; the current groups, or those of an earlier moment.",
        cursor=Cursor("user_groups"),
        is_short=True,
    ),
)
