"""The check: what `/v1` shows of each simulated group against what must be shown."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import httpx2

from projector.simulator.connection import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from projector.simulator.expected import ExpectedGroup

_TIMEOUT_S: Final = 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Difference(NamedTuple):
    """Something that is shown otherwise than it must be; None is not shown at all."""

    group_id: str
    what: str
    expected: object
    shown: object


async def check(
    url: str,
    token: str | None,
    expected: Mapping[str, ExpectedGroup],
    *,
    position: int,
    progress: Callable[[int], None],
) -> list[Difference]:
    """Ask for every group once the read model has reached `position`, and return what differs.

    `progress` is told how many groups are done. Raises Unreachable.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    found: list[Difference] = []
    try:
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            await _reach(client, position)
            for group_id, group in expected.items():
                found += await _compare(client, group_id, group)
                progress(1)
    except httpx2.HTTPError as error:
        raise Unreachable(f"{url} does not answer questions: {error}") from error
    return found


async def _reach(client: httpx2.AsyncClient, position: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while (answer := await client.get("/v1/groups", params={"limit": 1, "wait_for": position})).status_code == 503:
        if time.monotonic() > deadline:
            raise Unreachable(f"the read model did not reach position {position} within {_TIMEOUT_S} s")
        await asyncio.sleep(1)
    answer.raise_for_status()


async def _compare(client: httpx2.AsyncClient, group_id: str, group: ExpectedGroup) -> list[Difference]:
    address = f"/v1/groups/{quote(group_id, safe='')}"
    answer = await client.get(address)
    if answer.status_code == 404:
        return [] if group.type is None else [Difference(group_id, "group", group.shown(), None)]
    shown = answer.raise_for_status().json()
    found = [
        Difference(group_id, name, value, shown[name]) for name, value in group.shown().items() if shown[name] != value
    ]
    members = await _members(client, address)
    for user in sorted(members.keys() | group.members.keys()):
        must = _shown(group, user) if user in group.members else None
        is_shown = {name: members[user][name] for name in must or members[user]} if user in members else None
        if must != is_shown:
            found.append(Difference(group_id, f"member {user}", must, is_shown))
    return found


def _shown(group: ExpectedGroup, user: str) -> dict[str, Any]:
    member = group.members[user]
    told = {} if member.joined_at is None else {"joined_at": _time(member.joined_at)}
    return {
        "role": group.role_of(user),
        "name_card": member.name_card,
        "join_type": member.join_type,
        "operator": member.operator,
        **told,
    }


def _time(ms: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _members(client: httpx2.AsyncClient, address: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    parameters: dict[str, str | int] = {"limit": 1000}
    while True:
        page = (await client.get(f"{address}/members", params=parameters)).raise_for_status().json()
        found |= {member["user_id"]: member for member in page["members"]}
        if page["next"] is None:
            return found
        parameters["cursor"] = page["next"]
