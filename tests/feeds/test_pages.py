"""The feeds as pages: forms, filters, cursors, waiting, and links from rosters."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.running import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx2

    from tests.running import Server

pytestmark = pytest.mark.usefixtures("kind")


def post(server: Server, group_id: str, command: str, **fields: Any) -> int:
    about = {"CallbackCommand": f"Group.CallbackAfter{command}", "GroupId": group_id, "Type": "Public"}
    return int(server.post({**about, **fields}).raise_for_status().headers["Projector-Position"])


def create(server: Server, group_id: str, owner: str = "ann") -> int:
    return post(server, group_id, "CreateGroup", Owner_Account=owner, Name="n")


def join(server: Server, group_id: str, *users: str) -> int:
    return post(server, group_id, "NewMemberJoin", NewMemberList=[{"Member_Account": user} for user in users])


def asked(server: Server, path: str, accept: str = "application/json") -> httpx2.Response:
    return server.client.get(f"{server.url}{path}", headers={"Accept": accept})


def types(page: dict[str, Any]) -> list[list[str]]:
    return [[change["type"] for change in message["changes"]] for message in page["messages"]]


def test_a_roster_links_to_the_changes_that_follow_it(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    position = create(server, group_id)
    for path in (server.group_path(group_id), server.group_path(group_id, "members")):
        response = server.get(path, wait_for=position)
        link = re.fullmatch(r'<(.*)>; rel="changes"', response.headers["Link"])
        assert link
        assert asked(server, link[1]).json()["messages"] == []
    joined = join(server, group_id, "bob")
    page = asked(server, f"{link[1]}&wait=20").json()
    assert [message["position"] for message in page["messages"]] == [joined]
    assert page["caught_up"]
    assert page["next"] is None
    assert asked(server, f"/v1/changes?after={page['cursor']}").json()["messages"] == []
    assert asked(server, f"/v1/changes?after={page['messages'][0]['cursor']}").json()["messages"] == []


def test_a_link_from_the_past_leads_to_what_followed_then(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    position = create(server, group_id)
    joined = join(server, group_id, "bob")
    link = server.get(server.group_path(group_id), position=position).headers["Link"]
    page = asked(server, f"{re.findall('<(.*)>', link)[0]}&wait_for={joined}").json()
    assert [message["position"] for message in page["messages"]] == [joined]
    assert "Link" not in server.get(server.group_path(group_id), at=2**40).headers


def test_every_form_has_the_same_messages_and_other_forms_are_refused(
    server: Server, new_group: Callable[[], str]
) -> None:
    group_id = new_group()
    first = create(server, group_id)
    last = join(server, group_id, "bob", "cyd")
    path = f"/v1/changes?after={first - 1}&wait_for={last}"
    page = asked(server, path)
    messages = page.json()["messages"]
    assert [message["position"] for message in messages] == [first, last]
    for accept in ("*/*", "application/*;q=0.5, text/event-stream;q=0.1", "text/html, application/json"):
        assert asked(server, path, accept).json() == page.json()
    ndjson = asked(server, path, "application/x-ndjson")
    assert [json.loads(line) for line in ndjson.text.splitlines()] == messages
    batch = asked(server, path, "application/cloudevents-batch+json").json()
    assert [event["data"] for event in batch] == messages
    assert {event["type"] for event in batch} == {"im.group.changed"}
    assert [(event["id"], event["subject"]) for event in batch] == [(item["cursor"], group_id) for item in messages]
    assert ndjson.headers["Projector-Cursor"] == page.json()["cursor"]
    assert asked(server, path, "text/html").status_code == 406


def test_filters_select_whole_messages_and_what_concerns_everybody_passes(
    server: Server, new_group: Callable[[], str]
) -> None:
    group_id, other = new_group(), new_group()
    first = create(server, group_id)
    create(server, other, owner="bob")
    join(server, group_id, "bob", "cyd")
    last = post(server, group_id, "GroupDestroyed")

    def found(**filters: str) -> list[list[str]]:
        return types(server.get("/v1/changes", after=first - 1, wait_for=last, **filters).json())

    dismissed, bob_joined = ["group.dismissed"], ["member.joined", "member.joined"]
    assert found(user_id="bob") == [["group.created", "member.joined"], bob_joined, dismissed]
    assert found(user_id="bob", group_id=group_id) == [bob_joined, dismissed]
    assert found(user_id="nobody", type="group.filled") == [dismissed]
    assert found(group_id=other) == [["group.created", "member.joined"]]
    events = server.get("/v1/events", after=first - 1, user_id="cyd").json()["events"]
    assert [event["type"] for event in events] == ["MembersJoined", "GroupDismissed"]
    page = server.get("/v1/changes", after=first - 1, group_id="unknown").json()
    assert (page["messages"], page["cursor"].split("-")[0]) == ([], str(last)), "the cursor moves on"


def test_pages_follow_each_other_by_cursor_and_by_link(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    first = create(server, group_id)
    positions = [first, *(join(server, group_id, f"u{number}") for number in range(7))]
    for path in ("/v1/changes", "/v1/events"):
        found, address = [], f"{path}?after={first - 1}&limit=3&wait_for={positions[-1]}"
        while address:
            page = asked(server, address)
            found += [item["position"] for item in page.json().get("messages", page.json().get("events"))]
            links = re.findall('<(.*)>; rel="next"', page.headers.get("Link", ""))
            assert bool(page.json()["next"]) is bool(links)
            address = links[0] if links else ""
        assert found == positions


def test_a_long_poll_ends_with_the_first_message_that_is_selected(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    cursor = server.get("/v1/changes", wait_for=create(server, group_id), after="latest").json()["cursor"]
    pages: list[Any] = []

    def wait() -> None:
        pages.append(asked(server, f"/v1/changes?after={cursor}&wait=30&user_id=cyd").json())

    waiting = threading.Thread(target=wait)
    waiting.start()
    join(server, group_id, "bob")
    joined = join(server, group_id, "cyd")
    waiting.join(timeout=25)
    assert [message["position"] for message in pages[0]["messages"]] == [joined]
    empty = asked(server, f"/v1/changes?after={pages[0]['cursor']}&wait=1").json()
    assert (empty["messages"], empty["caught_up"], empty["cursor"]) == ([], True, pages[0]["cursor"])


@pytest.mark.parametrize(
    "query",
    ["after=x", "after=1-2-3", "after=-1", "wait=31", "limit=0", "group_id=", "cursor=1", "limit=1&limit=2", "user=a"],
)
def test_wrong_parameters_are_refused(server: Server, query: str) -> None:
    response = server.get(f"/v1/changes?{query}")
    assert (response.status_code, response.headers["Content-Type"]) == (400, "application/problem+json")


def test_a_cursor_of_another_history_is_refused_and_a_bare_position_is_not(
    server: Server, new_group: Callable[[], str]
) -> None:
    position = create(server, new_group())
    server.get("/v1/groups", wait_for=position)
    for cursor in (f"{position}-01234567-0", f"{position + 1000}-01234567-0", f"0-{'0' * 8}-99"):
        for path in ("/v1/changes", "/v1/events"):
            response = server.get(path, after=cursor)
            assert (response.status_code, response.json()["type"]) == (409, "history-changed")
    assert server.get("/v1/changes", after=position).status_code == 200
    beyond = server.get("/v1/changes", after=position + 1000).json()
    assert server.get("/v1/changes", after=beyond["cursor"]).status_code == 200


def test_a_restored_backup_in_which_positions_were_used_again_is_noticed(tmp_path: Path) -> None:
    """The server of a restored backup is one with the same first events, and others after them."""
    cursors = []
    for number in range(2):
        with serving(tmp_path / f"{number}.db") as server:
            for user in ("ann", f"user {number}"):
                position = server.post(
                    {
                        "CallbackCommand": "Group.CallbackAfterNewMemberJoin",
                        "GroupId": "g",
                        "EventTime": 1_670_574_414_000,
                        "NewMemberList": [{"Member_Account": user}],
                    }
                ).headers["Projector-Position"]
            cursors.append(server.get("/v1/changes", wait_for=position).json()["cursor"])
            if number:
                assert server.get("/v1/changes", after=cursors[0]).status_code == 409
                assert server.get("/v1/changes", after=cursors[1]).status_code == 200
