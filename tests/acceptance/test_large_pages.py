"""Lists of the largest groups and the largest members: every page is bounded, and so is the memory that it takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from projector.domain.limits import ATTRIBUTES, CUSTOM_FIELDS, MAX_BYTES
from projector.http.large_responses import MAX_SENDING_BYTES
from projector.read_model.pages import MAX_PAGE_BYTES
from tests.acceptance.test_resources import MEBIBYTE, peak
from tests.running import assert_no_traceback, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from projector.domain.limits import MapLimit
    from tests.running import Server

pytestmark = pytest.mark.slow

GROUPS, MEMBERS = 150, 1_000
CONTROL = "\x01"
"""A byte that takes six in JSON."""


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="") as running:
        yield running
        assert_no_traceback(running)


def entries(limit: MapLimit, character: str) -> list[tuple[str, str]]:
    return [
        (f"{number:03}".ljust(limit.key_bytes, character), character * limit.value_bytes)
        for number in range(limit.keys)
    ]


def largest_profile(group_id: str, character: str) -> Iterator[dict[str, Any]]:
    """Yield callbacks, each within the limit of a body, that give a group the largest profile."""
    attributes = entries(ATTRIBUTES, character)
    custom_fields = [{"Key": key, "Value": value} for key, value in entries(CUSTOM_FIELDS, character)]
    size = 10
    for start in range(0, CUSTOM_FIELDS.keys, 4 * size):
        changed = {
            "UserDefinedDataList": custom_fields[start : start + 4 * size],
            "Name": character * MAX_BYTES["name"],
        }
        yield {"CallbackCommand": "Group.CallbackAfterGroupInfoChanged", "GroupId": group_id, **changed}
    for start in range(0, ATTRIBUTES.keys, size):
        changed = {
            "OptionType": "modify",
            "GroupAttr": [{"key": key, "value": value} for key, value in attributes[start : start + size]],
        }
        yield {"CallbackCommand": "Group.CallbackAfterGroupAttrChanged", "GroupId": group_id, **changed}


MAX_GROWTH = 200 * MEBIBYTE
"""Of all processes together: each has buffers and a cache of its own."""


def pages(server: Server, address: str) -> Iterator[Any]:
    """Yield all pages of a list, each of which must be bounded."""
    while address:
        response = server.get(address).raise_for_status()
        page = response.json()
        (items,) = (value for value in page.values() if isinstance(value, list))
        assert len(response.content) <= MAX_PAGE_BYTES + MEBIBYTE or len(items) == 1
        assert len(response.content) < MAX_SENDING_BYTES
        yield items
        address = response.links["next"]["url"] if page["next"] else ""


def post_all(server: Server, callbacks: Iterator[dict[str, Any]]) -> int:
    """Post callbacks, wait until they are projected, and return the position of the last."""
    position = 0
    for callback in callbacks:
        response = server.post(json.dumps(callback).encode(), command=callback["CallbackCommand"]).raise_for_status()
        position = int(response.headers["Projector-Position"])
    while server.get("/v1/groups?limit=1", wait_for=position).status_code == 503:
        pass
    return position


def test_the_largest_groups_are_listed_in_bounded_pages_and_memory(server: Server) -> None:
    group_ids = [f"g{number:03}" for number in range(GROUPS)]
    post_all(server, (each for group_id in group_ids for each in largest_profile(group_id, "x")))
    post_all(server, largest_profile("worst", CONTROL))
    before = peak(server)
    listed = [group for page in pages(server, "/v1/groups?limit=1000") for group in page]
    assert [group["group_id"] for group in listed] == [*group_ids, "worst"]
    for group in listed:
        assert (len(group["attributes"]), len(group["custom_fields"])) == (ATTRIBUTES.keys, CUSTOM_FIELDS.keys)
    assert peak(server) < before + MAX_GROWTH


def test_members_with_the_largest_name_cards_are_listed_in_bounded_pages_and_memory(server: Server) -> None:
    users = [f"u{number:03}" for number in range(MEMBERS)]

    def callbacks() -> Iterator[dict[str, Any]]:
        joined = [{"Member_Account": user} for user in users]
        yield {"CallbackCommand": "Group.CallbackAfterNewMemberJoin", "GroupId": "g", "NewMemberList": joined}
        for user in users:
            card = {"Member_Account": user, "NameCard": CONTROL * MAX_BYTES["name_card"]}
            yield {"CallbackCommand": "Group.CallbackAfterMemberFieldChanged", "GroupId": "g", **card}

    position = post_all(server, callbacks())
    before = peak(server)
    for moment in ("", f"&position={position}", "&at=2100-01-01T00:00:00Z"):
        listed = [member for page in pages(server, f"/v1/groups/g/members?limit=1000{moment}") for member in page]
        assert [member["user_id"] for member in listed] == users
        assert {len(member["name_card"]) for member in listed} == {MAX_BYTES["name_card"]}
    assert peak(server) < before + MAX_GROWTH
