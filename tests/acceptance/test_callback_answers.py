"""The responses to callbacks of every kind, over a real socket, and their effects."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.running import SDK_APP_ID, Server, run_cli, serving, signature

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("kind")

OK = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}'
JOIN = "Group.CallbackAfterNewMemberJoin"
TOKEN = "a-secret-token"


def join(group_id: str, *users: str, **more: Any) -> dict[str, Any]:
    accounts = [{"Member_Account": user} for user in users or ("ann",)]
    body = {"CallbackCommand": JOIN, "GroupId": group_id, "JoinType": "Apply", "NewMemberList": accounts, **more}
    return {"Operator_Account": accounts[0]["Member_Account"], "Type": "Public", **body}


def counted(server: Server, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(server.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def assert_refused(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert body.keys() == {"ActionStatus", "ErrorInfo", "ErrorCode"}
    assert (body["ActionStatus"], body["ErrorCode"]) == ("FAIL", 1)
    assert body["ErrorInfo"]
    return body


def test_a_recorded_callback_is_answered_with_exactly_the_three_fields_and_its_position(
    server: Server, new_group: Callable[[], str]
) -> None:
    group_id = new_group()
    response = server.post(join(group_id, EventTime=1670574414123))
    assert (response.status_code, response.content) == (200, OK)
    position = int(response.headers["Projector-Position"])
    assert server.members(group_id, wait_for=position)["ann"]["joined_at"] == "2022-12-09T08:26:54.123Z"


def test_a_repeat_is_acknowledged_with_the_first_position_and_recorded_once(
    server: Server, new_group: Callable[[], str]
) -> None:
    group_id = new_group()
    before = counted(server, "projector_callbacks_total", result="repeated")
    first = server.post(join(group_id, EventTime=1670574414123))
    respelled = json.dumps(join(group_id, EventTime="1670574414123"), indent=3).encode()
    again = [server.post(join(group_id, EventTime=1670574414123)), server.post(respelled, command=JOIN)]
    assert {response.headers["Projector-Position"] for response in again} == {first.headers["Projector-Position"]}
    assert len(server.get(server.group_path(group_id, "events")).json()["events"]) == 1
    assert counted(server, "projector_callbacks_total", result="repeated") == before + 2


def test_a_repeat_is_known_after_a_restart(tmp_path: Path) -> None:
    positions = []
    for _ in range(2):
        with serving(tmp_path / "events.db") as server:
            positions.append(server.post(join("g", EventTime=1670574414123)).headers["Projector-Position"])
    assert positions == ["1", "1"]


def test_without_an_event_time_equal_callbacks_are_both_recorded(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    positions = [int(server.post(join(group_id)).headers["Projector-Position"]) for _ in range(2)]
    assert positions[1] == positions[0] + 1
    assert server.group(group_id, wait_for=positions[1])["member_count"] == 1


@pytest.mark.parametrize("app_id", ["", "1400000001", f"0{SDK_APP_ID}", "x" * 1000])
def test_another_app_is_refused(server: Server, app_id: str) -> None:
    assert_refused(server.post(join("other"), query={"SdkAppid": app_id}), 403)


def test_a_body_over_the_limit_is_refused_announced_or_not(server: Server) -> None:
    body = b'{"CallbackCommand":"' + b"x" * 10_000_000 + b'"}'
    host, port = server.url.removeprefix("http://").split(":")
    target = f"/callback?SdkAppid={SDK_APP_ID}&CallbackCommand={JOIN}"
    for headers, sent in (
        (f"Content-Length: {len(body)}", b""),
        ("Transfer-Encoding: chunked", b"".join(b"%x\r\n%s\r\n" % (70_000, b"y" * 70_000) for _ in range(16))),
    ):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode() + sent)
            assert connection.recv(12) == b"HTTP/1.1 413"
    assert counted(server, "projector_callbacks_total", result="too_large") == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_not_allowed(server: Server, method: str) -> None:
    response = server.client.request(method, f"{server.url}/callback?SdkAppid={SDK_APP_ID}")
    assert_refused(response, 405)
    assert response.headers["Allow"] == "POST"


UNREADABLE = {
    "not JSON": b'{"CallbackCommand":',
    "nothing": b"",
    "a list": b"[]",
    "invalid UTF-8": b'{"GroupId":"\xff","NewMemberList":[]}',
    "no group": b'{"NewMemberList":[]}',
    "an empty group id": b'{"GroupId":"","NewMemberList":[]}',
    "a number for a group id": b'{"GroupId":5,"NewMemberList":[]}',
    "no members": b'{"GroupId":"bad"}',
    "members of a wrong type": b'{"GroupId":"bad","NewMemberList":["ann"]}',
    "a time that is none": b'{"GroupId":"bad","NewMemberList":[],"EventTime":"noon"}',
    "nested too deeply": b'{"GroupId":"bad","NewMemberList":[],"X":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of 900,000 digits": b'{"GroupId":"bad","NewMemberList":[],"X":' + b"9" * 900_000 + b"}",
    "another command": b'{"GroupId":"bad","CallbackCommand":"Group.CallbackAfterGroupFull"}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_callback_is_refused_with_a_reason_kept_and_logged_in_one_line(
    server: Server, body: bytes
) -> None:
    before = counted(server, "projector_quarantine")
    lines = len(server.log)
    reason = assert_refused(server.post(body, command=JOIN), 400)["ErrorInfo"]
    assert counted(server, "projector_quarantine") == before + 1
    assert_refused(server.post(body, command=JOIN), 400)
    assert counted(server, "projector_quarantine") == before + 1, "the same bytes are kept once"
    logged = server.logged(lines, reason=reason)
    assert all(len(json.dumps(line)) < 1000 for line in logged)


STRANGE = {
    "NUL": "a\0b",
    "a slash and all that": '/ # % ? space "',
    "dots": "..",
    "Chinese": "群组一",
    "an emoji": "🎉",
}


@pytest.mark.parametrize("group_id", STRANGE.values(), ids=STRANGE)
def test_strange_ids_and_names_are_stored_and_served_as_they_are(server: Server, group_id: str) -> None:
    body = {"CallbackCommand": "Group.CallbackAfterCreateGroup", "GroupId": group_id, "Name": group_id}
    response = server.post(
        {**body, "Owner_Account": group_id, "UserDefinedDataList": [{"Key": "k", "Value": group_id}]}
    )
    position = int(response.headers["Projector-Position"])
    if group_id == "..":
        groups = server.get("/v1/groups", q="..", wait_for=position).json()["groups"]
        assert [group["name"] for group in groups] == [".."]
        return
    group = server.group(group_id, wait_for=position)
    assert (group["group_id"], group["name"], group["owner"]) == (group_id, group_id, group_id)
    assert group["custom_fields"] == {"k": group_id}
    assert server.members(group_id).keys() == {group_id}
    assert server.get(server.group_path(group_id, "members", group_id)).json()["role"] == "Owner"
    (event,) = server.get(server.group_path(group_id, "events")).json()["events"]
    assert event["callback"]["GroupId"] == group_id


def test_a_lone_surrogate_is_replaced_in_the_state_and_kept_in_the_history(
    server: Server, new_group: Callable[[], str]
) -> None:
    group_id = new_group()
    body = b'{"GroupId":"%s","Name":"cut \\ud83d","CallbackCommand":"Group.CallbackAfterGroupInfoChanged"}'
    response = server.post(body % group_id.encode(), command="Group.CallbackAfterGroupInfoChanged")
    assert server.group(group_id, wait_for=int(response.headers["Projector-Position"]))["name"] == "cut \ufffd"
    assert b"cut \\ud83d" in server.get(server.group_path(group_id, "events")).content


def test_the_last_of_duplicate_keys_counts(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    body = join(group_id)
    text = json.dumps(body)[:-1] + ',"NewMemberList":[{"Member_Account":"bob"}]}'
    response = server.post(text.encode(), command=JOIN)
    assert server.members(group_id, wait_for=int(response.headers["Projector-Position"])).keys() == {"bob"}


def test_empty_lists_and_a_thousand_members_are_taken(server: Server, new_group: Callable[[], str]) -> None:
    group_id, users = new_group(), [f"user{number}" for number in range(1000)]
    empty = {**join(group_id), "NewMemberList": []}
    assert server.post(empty).status_code == 200
    position = int(server.post(join(group_id, *users)).headers["Projector-Position"])
    assert server.group(group_id, wait_for=position)["member_count"] == 1000
    assert server.members(group_id).keys() == set(users)


def test_ignored_commands_are_acknowledged_and_counted_by_name(server: Server) -> None:
    head = counted(server, "projector_head_position")
    for command in ("Group.CallbackBeforeCreateGroup", "C2C.CallbackAfterSendMsg", "State.StateChange", "Made.Up"):
        response = server.post({"CallbackCommand": command, "GroupId": 5})
        assert (response.status_code, response.content) == (200, OK)
        assert "Projector-Position" not in response.headers
        assert counted(server, "projector_ignored_callbacks_total", command=command) == 1
    assert counted(server, "projector_head_position") == head


def test_an_event_time_from_the_future_is_replaced_and_counted(server: Server, new_group: Callable[[], str]) -> None:
    group_id, next_year = new_group(), time.time_ns() // 1_000_000 + 365 * 24 * 3600 * 1000
    first = server.post(join(group_id, EventTime=next_year))
    again = server.post(join(group_id, EventTime=next_year))
    assert again.headers["Projector-Position"] == first.headers["Projector-Position"]
    (event,) = server.get(server.group_path(group_id, "events")).json()["events"]
    assert event["occurred_at"] == event["recorded_at"]
    assert counted(server, "projector_future_event_times_total") == 2


def test_a_value_that_is_too_large_counts_as_null_is_counted_once_and_stays_in_the_history(
    server: Server, new_group: Callable[[], str]
) -> None:
    group_id, before = new_group(), counted(server, "projector_oversized_values_total")
    renamed = {
        "CallbackCommand": "Group.CallbackAfterGroupInfoChanged",
        "GroupId": group_id,
        "EventTime": time.time_ns() // 1_000_000,
        "Name": "n" * 2_001,
        "Introduction": "short",
    }
    for _ in range(2):
        position = int(server.post(renamed).headers["Projector-Position"])
    group = server.group(group_id, wait_for=position)
    assert (group["name"], group["introduction"]) == (None, "short")
    (event,) = server.get(server.group_path(group_id, "events")).json()["events"]
    assert event["callback"] == renamed
    assert counted(server, "projector_oversized_values_total") == before + 1


def test_no_content_type_and_any_case_of_parameter_names_will_do(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    target = f"{server.url}/callback?sdkappID={SDK_APP_ID}&CALLBACKCOMMAND={JOIN}&optplatform=IPad"
    request = server.client.build_request("POST", target, content=json.dumps(join(group_id)).encode())
    request.headers.pop("Content-Type", None)
    assert server.client.send(request).content == OK
    (event,) = server.get(server.group_path(group_id, "events")).json()["events"]
    assert event["platform"] == "iPad"


def test_many_senders_at_once_each_get_a_position_of_their_own(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    with ThreadPoolExecutor(32) as senders:
        responses = [*senders.map(lambda n: server.post(join(group_id, f"user{n}")), range(200))]
    positions = {int(response.headers["Projector-Position"]) for response in responses}
    assert len(positions) == 200
    assert server.group(group_id, wait_for=max(positions))["member_count"] == 200


def test_with_a_token_only_fresh_and_rightly_signed_callbacks_pass_and_no_log_line_shows_it(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_CALLBACK_TOKEN=TOKEN) as server:
        now = int(time.time())

        def signed(request_time: int, sign: str | None = None) -> int:
            query = {"RequestTime": str(request_time), "Sign": sign or signature(TOKEN, request_time)}
            return server.post(join("g"), query=query).status_code

        assert signed(now) == 200
        assert signed(now, signature(TOKEN, now).upper()) == 200
        assert [signed(now - 50), signed(now + 50)] == [200, 200]
        assert [signed(now - 120), signed(now + 120)] == [403, 403]
        assert [signed(now, signature("wrong", now)), signed(now, "é" * 64), signed(-now)] == [403, 403, 403]
        for query in ({}, {"Sign": signature(TOKEN, now)}, {"RequestTime": str(now)}):
            assert_refused(server.post(join("g"), query=query), 403)
        server.stop()
        assert sum(line.get("repeated", 1) for line in server.log if line.get("result") == "refused") == 8
        assert TOKEN not in "".join(server.raw_log)


@pytest.mark.slow
def test_quarantined_callbacks_can_be_listed_shown_and_retried(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        body = b'{"GroupId":5,"NewMemberList":[]}'
        server.post(body, command=JOIN)
        listed = run_cli(database, "quarantine", "list")
        assert JOIN in listed.stdout
        shown = run_cli(database, "quarantine", "show", "1")
        assert body.decode() in shown.stdout
        assert run_cli(database, "quarantine", "show", "2").returncode == 1
        retried = run_cli(database, "quarantine", "retry")
        assert retried.returncode == 1
        assert "still unreadable" in retried.stdout
