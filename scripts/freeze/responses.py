"""Requests every route of `/v1` for everything in a store, now and in the past, and some invalid requests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tests.frozen.frozen import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.running import Server

_MOST_USERS = 14
_SURROGATE = re.compile("[\ud800-\udfff]")
_ALL = {"limit": 1000}
_WRONG = (
    "/v1/groups?limit=0",
    "/v1/groups?limit=1001",
    "/v1/groups?nonsense=1",
    "/v1/groups?is_full=maybe",
    "/v1/groups?status=lost",
    "/v1/groups?cursor=wrong",
    "/v1/groups?q=a&q=b",
    "/v1/groups?q=%FF",
    "/v1/groups/%FF",
    "/v1/groups/unknown",
    "/v1/groups/unknown/members",
    "/v1/groups/unknown/members/unknown",
    "/v1/groups/unknown/members/unknown/history",
    "/v1/groups/unknown/events",
    "/v1/groups/unknown/diff",
    "/v1/groups/100%25/members/unknown",
    "/v1/groups/100%25/members/unknown/history",
    "/v1/groups/100%25?at=yesterday",
    "/v1/groups/100%25?at=1&position=1",
    "/v1/groups/100%25?position=-1",
    "/v1/groups/100%25?at=1",
    "/v1/groups/100%25/diff?from=2&to=1",
    "/v1/groups/100%25/diff?to=1",
    "/v1/users/unknown/groups",
    "/v1/events?after=-1",
    "/v1/events/1",
    "/v1",
    "/v2/groups",
    "/",
)


def responses(server: Server) -> list[dict[str, Any]]:
    """Request everything, follow every list to its end, and return the responses in order."""
    with Connection(server) as connection:
        return [*_Crawler(connection).everything()]


class _Crawler:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen: list[dict[str, Any]] = []

    def everything(self) -> Iterator[dict[str, Any]]:
        events = self._items("/v1/events", "events", limit=300)
        groups = [group["group_id"] for group in self._items("/v1/groups", "groups", **_ALL)]
        self._lists_of_groups()
        members: dict[str, None] = {}
        for group_id in groups:
            members |= dict.fromkeys(self._group(group_id))
        for user_id in members:
            self._user(user_id, [event["occurred_at"] for event in events], len(events))
        self._get_json("/v1/events", after=len(events) - 3)
        self._get_json("/v1/events", after=len(events))
        for url in _WRONG:
            self._get(url)
        yield from self._seen

    def _lists_of_groups(self) -> None:
        self._items("/v1/groups", "groups", limit=7)
        for condition in (
            {"status": "active"},
            {"status": "dismissed"},
            {"is_full": "true"},
            {"is_full": "false", "status": "active", "limit": 3},
            *({"type": kind} for kind in ("Public", "Community", "ChatRoom", "Private", "none such")),
            *({"q": prefix} for prefix in ("a", "@TGS#", "群", "100%", "nul\x00", "large", "AFTER", "%", "_")),
            {"type": "Public", "q": "a", "status": "active"},
        ):
            self._items("/v1/groups", "groups", **condition)

    def _group(self, group_id: str) -> list[str]:
        """Request everything about a group, and return its users, or some of many."""
        path = f"/v1/groups/{_segment(group_id)}"
        events = self._items(f"{path}/events", "events", **_ALL)
        times, positions = sorted(event["occurred_at"] for event in events), [event["position"] for event in events]
        early, late, last = times[len(times) // 3], times[len(times) * 3 // 4], times[-1]
        moments: list[dict[str, Any]] = [
            *({"at": time} for time in dict.fromkeys((early, late, last))),
            *({"position": position} for position in dict.fromkeys((positions[len(positions) // 2], positions[-1]))),
        ]
        for when in ({}, *moments):
            self._get_json(path, **when)
            self._items(f"{path}/members", "members", **_ALL, **when)
        self._items(f"{path}/members", "members", limit=40 if len(events) > 100 else 2)
        self._items(f"{path}/members", "members", limit=30, **moments[0])
        self._items(f"{path}/diff", "changed", limit=100)
        for span in ({"from": early}, {"from": early, "to": late}, {"to": late}):
            self._items(f"{path}/diff", "changed", **span)
            self._get_json(f"{path}/events", limit=20, **span)
        if len(events) < 100:
            self._items(f"{path}/events", "events", limit=5)
        users = list(dict.fromkeys(_named(events)))
        chosen = users[:: max(1, len(users) // _MOST_USERS)]
        for user_id in chosen:
            member = f"{path}/members/{_segment(user_id)}"
            for when in ({}, *moments[1:4]):
                self._get_json(member, **when)
            self._items(f"{member}/history", "history", **_ALL)
        self._items(f"{path}/members/{_segment(chosen[0])}/history" if chosen else path, "history", limit=1)
        return chosen

    def _user(self, user_id: str, times: Sequence[str], head: int) -> None:
        path = f"/v1/users/{_segment(user_id)}/groups"
        self._items(path, "groups", **_ALL)
        self._items(path, "groups", limit=2)
        self._get_json(path, at=sorted(times)[head // 2])
        self._get_json(path, position=head // 2)

    def _items(self, path: str, name: str, **parameters: Any) -> list[Any]:
        """Follow a list to its last page, and return its items."""
        page = self._get_json(path, **parameters)
        items = page.get(name, [])
        while page.get("next"):
            page = self._get_json(path, **parameters, cursor=page["next"])
            items += page.get(name, [])
        return items

    def _get_json(self, path: str, **parameters: Any) -> dict[str, Any]:
        return self._get(f"{path}?{urlencode(parameters)}" if parameters else path)

    def _get(self, url: str) -> dict[str, Any]:
        response = self._connection.get(url)
        self._seen.append(response)
        return json.loads(response["body"]) if response["status"] == 200 else {}


def _named(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the user ids in the member lists of callbacks; a lone surrogate is U+FFFD in an id."""
    for event in events:
        for name in ("MemberList", "NewMemberList", "ExitMemberList"):
            for account in event["callback"].get(name) or ():
                yield _SURROGATE.sub("\ufffd", account["Member_Account"])


def _segment(text: str) -> str:
    return quote(text, safe="").replace(".", "%2E")
