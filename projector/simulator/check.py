"""Compares the groups that `/v1` shows with the state that must follow from the simulated traffic."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx2

from projector.clock import to_rfc3339
from projector.simulator.connection import Unreachable
from projector.simulator.expected import ExpectedGroup
from projector.simulator.options import Options
from projector.simulator.queries import querying

_TIMEOUT_S: Final = 60


class Difference(NamedTuple):
    """A field or member that does not match; None is absent."""

    group_id: str
    field: str
    expected: object
    shown: object


async def check(
    options: Options,
    expected: Mapping[str, ExpectedGroup],
    *,
    position: int,
    progress: Callable[[int], None],
) -> list[Difference]:
    """Compare every group once the read model has reached `position`; return the differences.

    `progress` is called with the number of groups compared since the last call. Raises Unreachable.
    """
    differences: list[Difference] = []
    async with querying(options) as client:
        await _wait_for(client, position)
        for group_id, group in expected.items():
            differences += await _compare(client, group_id, group)
            progress(1)
    return differences


async def _wait_for(client: httpx2.AsyncClient, position: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while (response := await client.get("/v1/groups", params={"limit": 1, "wait_for": position})).status_code == 503:
        if time.monotonic() > deadline:
            raise Unreachable(f"the read model did not reach position {position} within {_TIMEOUT_S} s")
        await asyncio.sleep(1)
    response.raise_for_status()


async def _compare(client: httpx2.AsyncClient, group_id: str, group: ExpectedGroup) -> list[Difference]:
    address = f"/v1/groups/{quote(group_id, safe='')}"
    response = await client.get(address)
    if response.status_code == 404:
        return [] if group.type is None else [Difference(group_id, "group", group.shown(), None)]
    shown = response.raise_for_status().json()
    differences = [
        Difference(group_id, name, value, shown[name]) for name, value in group.shown().items() if shown[name] != value
    ]
    members = await _members(client, address)
    for user in sorted(members.keys() | group.members.keys()):
        expected_member = _shown(group, user) if user in group.members else None
        shown_member = (
            {name: members[user][name] for name in expected_member or members[user]} if user in members else None
        )
        if expected_member != shown_member:
            differences.append(Difference(group_id, f"member {user}", expected_member, shown_member))
    return differences


def _shown(group: ExpectedGroup, user: str) -> dict[str, Any]:
    member = group.members[user]
    joined_at = {} if member.joined_at is None else {"joined_at": to_rfc3339(member.joined_at)}
    return {
        "role": group.role_of(user),
        "name_card": member.name_card,
        "join_type": member.join_type,
        "operator": member.operator,
        **joined_at,
    }


async def _members(client: httpx2.AsyncClient, address: str) -> dict[str, dict[str, Any]]:
    members: dict[str, dict[str, Any]] = {}
    parameters: dict[str, str | int] = {"limit": 1000}
    while True:
        page = (await client.get(f"{address}/members", params=parameters)).raise_for_status().json()
        members |= {member["user_id"]: member for member in page["members"]}
        if page["next"] is None:
            return members
        parameters["cursor"] = page["next"]
