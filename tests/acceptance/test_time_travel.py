"""Queries about earlier moments, differences and histories, over a real socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.running import Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("kind")

GROUP = "@TGS#tea"
START = 1670574414000
"""2022-12-09T08:26:54Z; a minute passes between any two of the things that happen."""
MINUTE = 60_000


def sent(command: str, minute: int, **more: Any) -> dict[str, Any]:
    return {
        "CallbackCommand": f"Group.CallbackAfter{command}",
        "GroupId": GROUP,
        "EventTime": START + minute * MINUTE,
        "Type": "Public",
        **more,
    }


def accounts(field: str, *users: str) -> dict[str, Any]:
    return {field: [{"Member_Account": user} for user in users]}


STORY = [
    sent("CreateGroup", 0, Owner_Account="ann", Operator_Account="ann", Name="tea", **accounts("MemberList", "ann")),
    sent("NewMemberJoin", 1, JoinType="Apply", Operator_Account="bob", **accounts("NewMemberList", "bob")),
    sent("MemberExit", 3, ExitType="Kicked", Operator_Account="ann", **accounts("ExitMemberList", "bob")),
    # It happened before bob was removed, and comes late.
    sent("NewMemberJoin", 2, JoinType="Invited", Operator_Account="bob", **accounts("NewMemberList", "cid")),
    sent("GroupInfoChanged", 4, Operator_Account="ann", Name="green tea"),
    sent("NewMemberJoin", 5, JoinType="Apply", Operator_Account="bob", **accounts("NewMemberList", "bob")),
    sent("GroupDestroyed", 6, Operator_Account="ann"),
    {**sent("MemberFieldChanged", 7, Operator_Account="ann", Member_Account="gil"), "GroupId": "other"},
    {**sent("CreateGroup", 9, Owner_Account="bob", Operator_Account="bob", Name="other"), "GroupId": "other"},
]
HEAD = len(STORY)


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("past") / "events.db") as server:
        for position, body in enumerate(STORY, 1):
            assert server.post(body).headers["Projector-Position"] == str(position)
        server.get("/v1/groups", wait_for=HEAD).raise_for_status()
        yield server


def at(minute: float) -> int:
    return int(START + minute * MINUTE)


def user_ids(members: list[dict[str, Any]]) -> list[str]:
    return [member["user_id"] for member in members]


def members(server: Server, **when: str | int) -> list[str]:
    roster = server.get(server.group_path(GROUP, "members"), **when).raise_for_status().json()
    assert roster["member_count"] == len(roster["members"])
    return user_ids(roster["members"])


@pytest.mark.parametrize(
    ("minute", "users"),
    [
        (0, ["ann"]),
        (0.99, ["ann"]),
        (1, ["ann", "bob"]),
        (2, ["ann", "bob", "cid"]),
        (3, ["ann", "cid"]),
        (5.5, ["ann", "bob", "cid"]),
        (6, []),
        (100, []),
    ],
)
def test_at_a_time_the_roster_is_as_it_was_then_from_all_that_is_known_now(
    server: Server, minute: float, users: list[str]
) -> None:
    assert members(server, at=at(minute)) == users


@pytest.mark.parametrize(
    ("position", "users"),
    [(1, ["ann"]), (2, ["ann", "bob"]), (3, ["ann"]), (4, ["ann", "cid"]), (6, ["ann", "bob", "cid"]), (7, [])],
)
def test_at_a_position_the_roster_is_what_was_known_when_that_event_had_been_applied(
    server: Server, position: int, users: list[str]
) -> None:
    assert members(server, position=position) == users


def test_a_group_a_member_and_a_users_groups_can_be_queried_at_a_past_moment(server: Server) -> None:
    path = server.group_path(GROUP)
    group = server.get(path, at=at(3)).json()
    assert (group["name"], group["status"], group["member_count"], group["position"]) == ("tea", "active", 2, 4)
    assert server.get(path, at=at(4)).json()["name"] == "green tea"
    assert server.get(path, position=HEAD).json() == server.get(path).json()
    member = server.get(f"{path}/members/bob", at=at(2)).json()
    assert (member["joined_at"], member["join_type"]) == ("2022-12-09T08:27:54.000Z", "Apply")
    assert server.get(f"{path}/members/bob", at=at(5)).json()["joined_at"] == "2022-12-09T08:31:54.000Z"
    for when, groups in (({"at": at(1)}, [GROUP]), ({"at": at(3)}, []), ({"position": HEAD}, ["other"])):
        listed = server.get("/v1/users/bob/groups", **when).raise_for_status().json()["groups"]
        assert [group["group_id"] for group in listed] == groups
    assert (
        server.get("/v1/users/bob/groups", at=at(0)).json()["detail"]
        == "No events for this user up to the requested moment."
    )


@pytest.mark.parametrize(
    "same",
    [
        "1670574594000",
        "2022-12-09T08:29:54Z",
        "2022-12-09t08:29:54.000000z",
        "2022-12-09T08:29:54.000999Z",
        "2022-12-09T16:29:54+08:00",
        "2022-12-09T03:29:54-05:00",
        "2022-12-09 08:29:54Z",
    ],
)
def test_a_time_is_rfc_3339_with_any_offset_or_ms(server: Server, same: str) -> None:
    path = server.url + server.group_path(GROUP, "members")
    expected = server.client.get(f"{path}?at={at(3)}").json()
    assert server.client.get(f"{path}?at={same}").json() == expected
    assert server.client.get(f"{path}?at={quote(same)}").json() == expected


@pytest.mark.parametrize(
    "wrong",
    [
        "at=yesterday",
        "at=",
        "at=2022-12-09",
        "at=2022-12-09T08:29:54",
        "at=2022-13-09T08:29:54Z",
        "at=-1",
        "at=1e12",
        "at=9999999999999999",
        "position=last",
        "position=-1",
        "at=1670574594000&position=1",
    ],
)
def test_a_wrong_moment_is_refused_with_the_reason(server: Server, wrong: str) -> None:
    for path in (server.group_path(GROUP), server.group_path(GROUP, "members"), "/v1/users/ann/groups"):
        response = server.client.get(f"{server.url}{path}?{wrong}")
        assert response.status_code == 400, response.text
        assert "'at'" in response.json()["detail"] or "'position'" in response.json()["detail"]


def test_before_its_first_event_a_group_is_404(server: Server) -> None:
    for path in ((GROUP,), (GROUP, "members"), (GROUP, "members", "ann")):
        for when in ({"at": at(0) - 1}, {"at": "0001-01-01T00:00:00+23:59"}, {"position": 0}):
            response = server.get(server.group_path(*path), **when)
            assert (response.status_code, response.json()["detail"]) == (
                404,
                "No events for this group up to the requested moment.",
            )
    response = server.get(server.group_path(GROUP, "members", "cid"), at=at(1))
    assert (response.status_code, response.json()["detail"]) == (
        404,
        "This user was not a member of this group at the requested moment.",
    )


def test_a_user_is_known_from_the_first_event_that_names_them_on_whatever_it_says(server: Server) -> None:
    path = "/v1/users/gil/groups"
    for moment in ({}, {"at": at(7)}, {"at": at(60)}, {"position": HEAD - 1}, {"position": HEAD}):
        assert server.get(path, **moment).raise_for_status().json() == {"user_id": "gil", "groups": [], "next": None}
    for moment in ({"at": at(7) - 1}, {"position": HEAD - 2}):
        response = server.get(path, **moment)
        assert (response.status_code, response.json()["detail"]) == (
            404,
            "No events for this user up to the requested moment.",
        )


@pytest.mark.slow
def test_a_position_that_is_not_reached_yet_is_waited_for(server: Server) -> None:
    response = server.get(server.group_path(GROUP), position=HEAD + 1)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"


def test_a_past_roster_is_paged_like_any_other(server: Server) -> None:
    path, members, parameters = server.group_path(GROUP, "members"), [], {"at": at(2), "limit": 2}
    page = server.get(path, **parameters)
    assert f"at={at(2)}" in page.headers["Link"]
    members += page.json()["members"]
    rest = server.client.get(server.url + page.headers["Link"].partition(">")[0].removeprefix("<")).json()
    assert user_ids(members + rest["members"]) == ["ann", "bob", "cid"]
    assert rest["next"] is None


def test_a_members_history_says_why_newest_first_with_the_callback_of_each_change(server: Server) -> None:
    path = server.group_path(GROUP, "members", "bob", "history")
    whole = server.get(path).raise_for_status().json()
    assert whole["next"] is None
    history = whole["history"]
    shown = [(event["change"], event["position"], event["type"], event["operator"]) for event in history]
    assert shown == [
        ("dismissed", 7, "GroupDismissed", "ann"),
        ("joined", 6, "MembersJoined", "bob"),
        ("left", 3, "MembersLeft", "ann"),
        ("joined", 2, "MembersJoined", "bob"),
    ]
    assert [event["callback"] for event in history] == [STORY[event["position"] - 1] for event in history]
    paged, cursor = [], {}
    while cursor is not None:
        page = server.get(path, limit=1, **cursor).raise_for_status().json()
        paged += page["history"]
        cursor = {"cursor": page["next"]} if page["next"] else None
    assert paged == history
    assert server.get(server.group_path(GROUP, "members", "eve", "history")).status_code == 404
    other = server.get("/v1/groups", limit=1).json()["next"]
    assert server.get(path, cursor=other).status_code == 400


def test_a_diff_says_who_joined_who_left_and_which_fields_changed(server: Server) -> None:
    path = server.group_path(GROUP, "diff")
    diff = server.get(path, **{"from": at(1), "to": at(4)}).raise_for_status().json()
    assert diff["group_id"] == GROUP
    assert diff["fields"] == {"name": {"before": "tea", "after": "green tea"}}
    assert user_ids(diff["joined"]) == ["cid"]
    assert [(member["user_id"], member["joined_at"]) for member in diff["left"]] == [
        ("bob", "2022-12-09T08:27:54.000Z")
    ]
    assert (diff["changed"], diff["next"]) == ([], None)
    again = server.get(path, **{"from": at(1), "to": at(5)}).json()
    assert user_ids(again["joined"]) == ["cid"]
    assert [(change["before"]["joined_at"], change["after"]["joined_at"]) for change in again["changed"]] == [
        ("2022-12-09T08:27:54.000Z", "2022-12-09T08:31:54.000Z")
    ]
    to_now = server.get(path, **{"from": at(5)}).json()
    assert user_ids(to_now["left"]) == ["ann", "bob", "cid"]
    assert to_now["fields"]["status"] == {"before": "active", "after": "dismissed"}
    nothing = server.get(path, **{"from": at(5), "to": at(5)}).json()
    assert (nothing["fields"], nothing["joined"], nothing["left"], nothing["changed"]) == ({}, [], [], [])


def test_a_diff_from_before_everything_is_all_there_is(server: Server) -> None:
    path, joined, cursor = server.group_path(GROUP, "diff"), [], {}
    while cursor is not None:
        page = server.get(path, to=at(2), limit=1, **cursor).raise_for_status().json()
        assert page["fields"]["name"] == {"before": None, "after": "tea"}
        joined += user_ids(page["joined"])
        cursor = {"cursor": page["next"]} if page["next"] else None
    assert joined == ["ann", "bob", "cid"]
    assert server.get(path, to=at(0) - 1).status_code == 404


def test_events_of_a_span_are_those_that_happened_after_from_and_up_to_to(server: Server) -> None:
    path = server.group_path(GROUP, "events")

    def positions(**span: int) -> list[int]:
        return [event["position"] for event in server.get(path, **span).raise_for_status().json()["events"]]

    assert positions(**{"from": at(1), "to": at(3)}) == [3, 4]
    assert positions(to=at(2)) == [1, 2, 4]
    assert positions(**{"from": at(4)}) == [6, 7]
    assert positions(**{"from": at(7)}) == []
    paged, cursor = [], {}
    while cursor is not None:
        page = server.get(path, limit=1, to=at(3), **cursor).raise_for_status().json()
        paged += [event["position"] for event in page["events"]]
        cursor = {"cursor": page["next"]} if page["next"] else None
    assert paged == [1, 2, 3, 4]
    backwards = server.get(path, **{"from": at(3), "to": at(1)})
    assert (backwards.status_code, "'from'" in backwards.json()["detail"]) == (400, True)
    assert server.get(server.group_path("no", "events"), to=at(3)).status_code == 404
