"""Queries of `/v1`, over HTTP."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from projector.simulator import names
from projector.simulator.connection import Unreachable
from projector.simulator.options import Options
from projector.simulator.request import reason


class OtherGroups(Exception):
    """The store holds a group that no simulation has made. The text names it."""


@asynccontextmanager
async def querying(options: Options) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a client for queries. Raises Unreachable in place of its errors."""
    url = options.queries_url or options.url
    headers = {"Authorization": f"Bearer {options.read_token}"} if options.read_token else {}
    try:
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield client
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        hint = "; set --queries-url to the address that answers queries" if status == 404 else ""
        raise Unreachable(
            f"{url} answered a query with status {status}: {reason(error.response.content)}{hint}"
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unreachable(f"queries to {url} failed: {error}") from error


async def require_no_other_groups(options: Options) -> None:
    """Raise OtherGroups if there is a group of other origin, Unreachable if not all events are projected yet."""
    async with querying(options) as client:
        status = (await client.get("/v1/status")).raise_for_status().json()
        async for page in _pages(client, "/v1/groups", {"wait_for": status["head"]}):
            _require_simulated(page["groups"])


def _require_simulated(items: Iterable[Mapping[str, Any]]) -> None:
    for item in items:
        if not names.is_simulated(group_id := item["group_id"]):
            raise OtherGroups(
                f"the store has other groups, such as {group_id}, and simulated ones would stay among them for good;"
                " use an empty store, or pass --into-existing"
            )


async def _pages(
    client: httpx2.AsyncClient, path: str, parameters: Mapping[str, str | int]
) -> AsyncIterator[dict[str, Any]]:
    """Yield the pages of a list."""
    cursor: dict[str, str] = {}
    while True:
        response = (await client.get(path, params={"limit": 1000, **parameters, **cursor})).raise_for_status()
        page = response.json()
        yield page
        if page["next"] is None:
            return
        cursor = {"cursor": page["next"]}
