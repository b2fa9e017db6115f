"""The `/v1` routes, over a real socket."""

from __future__ import annotations

import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.kinds import change_events
from tests.processes.waiting import until
from tests.running import Server, environment, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

pytestmark = pytest.mark.usefixtures("kind")

TYPES = ("Public", "ChatRoom")


def create(group_id: str, name: str, moment: int, **more: Any) -> dict[str, Any]:
    about = {"CallbackCommand": "Group.CallbackAfterCreateGroup", "GroupId": group_id, "EventTime": moment}
    return {**about, "Name": name, "Owner_Account": "ann", "Type": "Public", "Operator_Account": "ann", **more}


def about(command: str, group_id: str, moment: int, **more: Any) -> dict[str, Any]:
    return {"CallbackCommand": f"Group.CallbackAfter{command}", "GroupId": group_id, "EventTime": moment, **more}


def position_of(response: httpx2.Response) -> int:
    assert response.status_code == 200
    return int(response.headers["Projector-Position"])


@pytest.fixture(scope="module")
def town(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with 25 groups: every fifth full, every seventh dismissed, names and types alternating."""
    with serving(tmp_path_factory.mktemp("town") / "events.db") as server:
        last = 0
        for number in range(25):
            group_id, moment = f"@TGS#{number:02}", 1670574414000 + number
            members = [{"Member_Account": f"user{member:02}"} for member in range(number)]
            body = create(group_id, f"{'tea' if number % 2 else 'Tennis'} {number}", moment, MemberList=members)
            last = position_of(server.post({**body, "Type": TYPES[number % 2]}))
            if number % 5 == 0:
                last = position_of(server.post(about("GroupFull", group_id, moment + 100)))
            if number % 7 == 0:
                last = position_of(server.post(about("GroupDestroyed", group_id, moment + 200)))
        server.get("/v1/groups", wait_for=last).raise_for_status()
        yield server


def expected_ids(condition: Any) -> list[str]:
    return [f"@TGS#{number:02}" for number in range(25) if condition(number)]


def all_pages(server: Server, path: str, items: str, **parameters: str | int) -> list[dict[str, Any]]:
    """Return the items of all pages, following `Link: rel="next"`, which must agree with the cursor in the body."""
    address, collected = f"{server.url}{path}?" + "&".join(f"{k}={quote(str(v))}" for k, v in parameters.items()), []
    while True:
        response = server.client.get(address).raise_for_status()
        page = response.json()
        assert len(page[items]) <= int(parameters.get("limit", 100))
        collected += page[items]
        links = re.findall('<([^>]*)>; rel="next"', response.headers.get("Link", ""))
        if page["next"] is None:
            assert links == []
            return collected
        (link,) = links
        assert quote(page["next"]) in link
        address = server.url + link


@pytest.mark.parametrize(
    ("parameters", "condition"),
    [
        ({}, lambda n: True),
        ({"type": "Public"}, lambda n: n % 2 == 0),
        ({"type": "AVChatRoom"}, lambda n: False),
        ({"status": "dismissed"}, lambda n: n % 7 == 0),
        ({"status": "active", "type": "ChatRoom"}, lambda n: n % 7 and n % 2),
        ({"is_full": "true"}, lambda n: n % 5 == 0 and n % 7),
        ({"is_full": "false"}, lambda n: n % 5 or n % 7 == 0),
        ({"q": "tea"}, lambda n: n % 2),
        ({"q": "Ten", "is_full": "true", "status": "active", "type": "Public"}, lambda n: n in (10, 20)),
        ({"q": "@TGS#1"}, lambda n: 10 <= n < 20),
        ({"q": "%"}, lambda n: False),
    ],
)
@pytest.mark.parametrize("limit", [1, 4, 1000])
def test_groups_are_listed_by_id_filtered_and_paged(town: Server, parameters: Any, condition: Any, limit: int) -> None:
    groups = all_pages(town, "/v1/groups", "groups", limit=limit, **parameters)
    assert [group["group_id"] for group in groups] == expected_ids(condition)
    assert groups == [town.group(group["group_id"]) for group in groups]


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_members_are_listed_by_user_id_and_paged(town: Server, limit: int) -> None:
    members = all_pages(town, town.group_path("@TGS#24", "members"), "members", limit=limit)
    assert [member["user_id"] for member in members] == ["ann", *(f"user{number:02}" for number in range(24))]
    assert {member["role"] for member in members[1:]} == {"Member"}
    each = [town.get(town.group_path("@TGS#24", "members", member["user_id"])).json() for member in members]
    assert members == each


def test_a_users_groups_are_those_that_list_the_user(town: Server) -> None:
    groups = all_pages(town, "/v1/users/user10/groups", "groups", limit=3)
    assert [group["group_id"] for group in groups] == expected_ids(lambda n: n > 10 and n % 7)
    assert {group["role"] for group in groups} == {"Member"}
    assert town.get("/v1/users/nobody/groups").status_code == 404


def test_a_dismissed_group_keeps_its_profile_and_has_no_members(town: Server) -> None:
    group = town.group("@TGS#07")
    assert (group["status"], group["name"], group["member_count"], group["is_full"]) == ("dismissed", "tea 7", 0, False)
    assert group["dismissed_at"] == "2022-12-09T08:26:54.207Z"
    assert town.members("@TGS#07") == {}
    assert town.get(town.group_path("@TGS#07", "members", "ann")).status_code == 404


def test_the_history_of_one_group_and_of_all_is_by_position(town: Server) -> None:
    everything = all_pages(town, "/v1/events", "events", limit=10)
    assert [event["position"] for event in everything] == list(range(1, len(everything) + 1))
    of_one = all_pages(town, town.group_path("@TGS#00", "events"), "events", limit=1)
    assert of_one == [event for event in everything if event["group_id"] == "@TGS#00"]
    assert [event["type"] for event in of_one] == ["GroupCreated", "GroupFilled", "GroupDismissed"]
    rest = all_pages(town, "/v1/events", "events", after=30, limit=2)
    assert rest == everything[30:]


@pytest.mark.parametrize(
    "address",
    [
        "/v1/groups?limit=0",
        "/v1/groups?limit=1001",
        "/v1/groups?limit=ten",
        "/v1/groups?limit=",
        "/v1/groups?limit=1&limit=2",
        "/v1/groups?status=gone",
        "/v1/groups?is_full=yes",
        "/v1/groups?is_ful=true",
        "/v1/groups?cursor=zzz",
        "/v1/groups?cursor=" + "A" * 4000,
        "/v1/groups?q=%FF",
        "/v1/groups?q",
        "/v1/groups/%FF",
        "/v1/groups/x/members?after=1",
        "/v1/groups/x?at=2022-12-09T08:26:54.123Z&surprise=1",
        "/v1/events?after=-1",
        "/v1/events?wait_for=99999999999999999999",
    ],
)
def test_a_wrong_query_is_refused_with_the_reason(town: Server, address: str) -> None:
    response = town.client.get(town.url + address)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json().keys() == {"type", "title", "status", "detail"}


@pytest.mark.parametrize(
    ("path", "name", "key"),
    [
        ("/v1/events", "events", "9" * 5_000),
        ("/v1/events", "events", str(2**63)),
        ("/v1/groups/g/events", "group_events", "9" * 5_000),
        ("/v1/groups/g/members/u/history", "history", f"{'9' * 5_000},1"),
        ("/v1/groups/g/members/u/history", "history", f"1,{'9' * 5_000}"),
    ],
)
def test_a_cursor_of_a_number_beyond_all_positions_is_refused(town: Server, path: str, name: str, key: str) -> None:
    cursor = urlsafe_b64encode(f"{name}:{key}".encode()).decode().rstrip("=")
    response = town.get(path, cursor=cursor)
    assert (response.status_code, response.json()["detail"]) == (400, "The cursor does not belong to this list.")


def test_a_cursor_of_another_list_is_refused(town: Server) -> None:
    cursor = town.get("/v1/groups", limit=1).json()["next"]
    assert town.get(town.group_path("@TGS#24", "members"), cursor=cursor).status_code == 400


def test_an_etag_stays_while_the_response_does_and_changes_with_it(server: Server) -> None:
    position = position_of(server.post(create("etag", "one", 1670574414000)))
    path = server.group_path("etag")
    first = server.get(path, wait_for=position)
    etag = first.headers["ETag"]
    for sent in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = server.client.get(server.url + path, headers={"If-None-Match": sent})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
        assert "Projector-Position" in response.headers
    position = position_of(server.post(about("GroupInfoChanged", "etag", 1670574415000, Name="two")))
    server.get(path, wait_for=position)
    changed = server.client.get(server.url + path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["name"]) == (200, "two")


@pytest.mark.slow
def test_waiting_for_a_position_that_does_not_come_ends(town: Server) -> None:
    response = town.get("/v1/groups", wait_for=10**9)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"


def test_an_unknown_id_is_404_everywhere(town: Server) -> None:
    for path in ("/v1/groups/no", "/v1/groups/no/members", "/v1/groups/no/members/a", "/v1/groups/no/events", "/v1/no"):
        response = town.get(path)
        assert response.status_code == 404
        assert response.headers["Content-Type"] == "application/problem+json"


def test_only_reading_is_allowed(town: Server) -> None:
    response = town.client.post(f"{town.url}/v1/groups")
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]
    assert response.headers["Content-Type"] == "application/problem+json"
    head = town.client.head(f"{town.url}/v1/groups")
    assert (head.status_code, head.content) == (200, b"")


def test_with_read_tokens_one_of_them_is_required_for_queries_and_metrics(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="one, two") as server:
        for path in ("/v1/groups", "/v1/groups/x", "/v1/nowhere", "/metrics"):
            for headers in ({}, {"Authorization": "Bearer three"}, {"Authorization": "Basic one"}):
                response = server.client.get(server.url + path, headers=headers)
                assert response.status_code == 401
                assert response.headers["WWW-Authenticate"] == "Bearer"
            allowed = server.client.get(server.url + path, headers={"Authorization": "bearer two"})
            assert allowed.status_code in (200, 404)
        assert [server.get(path).status_code for path in ("/livez", "/readyz", "/openapi.json")] == [200] * 3
        assert server.post(create("g", "n", 1670574414000)).status_code == 200
        server.stop()
        assert "three" not in "".join(server.raw_log)


@pytest.mark.slow
def test_an_event_that_cannot_be_applied_is_named_while_everything_else_goes_on(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        position_of(server.post(create("g", "before", 1670574414000)))
    change_events(database, "INSERT INTO stored_events VALUES ('g', 2, 'FromTomorrow', '{}')")
    with serving(database) as server:
        position = position_of(server.post(about("GroupInfoChanged", "g", 1670574415000, Name="after")))
        assert position == 3
        assert server.group("g", wait_for=3)["name"] == "after"
        ready = server.get("/readyz")
        assert ready.status_code == 503
        assert "projection groups has set aside 1 event, the first at position 2" in ready.text
        assert server.get("/livez").status_code == 200
        status = run_cli(database, "status")
        assert status.returncode == 1
        assert "groups        at 3, 0 behind, 1 set aside" in status.stdout
        assert "projection groups has set aside 1 event" in status.stdout
        event = server.get(server.group_path("g", "events")).json()["events"][1]
        assert (event["position"], event["type"], event["callback"]) == (2, "FromTomorrow", {})
    first = "(SELECT state FROM stored_events WHERE originator_version = 1)"
    change_events(
        database, f"UPDATE stored_events SET topic = 'GroupFilled', state = {first} WHERE originator_version = 2"
    )
    with serving(database) as server:
        until(lambda: server.get("/readyz").status_code == 200, of=server)  # it is applied after the fix
        assert server.group("g")["full_at"] is not None


@pytest.mark.slow
def test_the_roles_work_as_processes_of_their_own(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with (
        serving(database, "--only", "callbacks") as receiver,
        serving(database, "--only", "projections") as projector,
        serving(database, "--only", "queries") as querying,
    ):
        position = position_of(receiver.post(create("g", "name", 1670574414000)))
        assert querying.group("g", wait_for=position)["name"] == "name"
        assert receiver.get("/v1/groups").status_code == 404
        assert querying.post(create("h", "name", 1670574414000)).status_code == 404
        assert {server.get("/readyz").status_code for server in (receiver, projector, querying)} == {200}


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (["--host", "0.0.0.0"], {}, "PROJECTOR_CALLBACK_TOKEN and PROJECTOR_READ_TOKENS"),
        (["--host", "0.0.0.0"], {"PROJECTOR_CALLBACK_TOKEN": "t"}, "PROJECTOR_READ_TOKENS"),
        (["--host", "::"], {"PROJECTOR_READ_TOKENS": "t"}, "PROJECTOR_CALLBACK_TOKEN"),
        ([], {"PROJECTOR_SDK_APP_ID": ""}, "PROJECTOR_SDK_APP_ID"),
        ([], {"PROJECTOR_SDK_APP_ID": "my app"}, "PROJECTOR_SDK_APP_ID"),
        ([], {"PROJECTOR_DATABASE_URL": "mysql://secret@host/x"}, "PROJECTOR_DATABASE_URL"),
        (
            [],
            {"PROJECTOR_DATABASE_URL": "sqlite:////nowhere/at/all.db"},
            "all.db: No such file or directory",
        ),
        ([], {"PROJECTOR_DATABASE_URL": "sqlite:///:memory:"}, "events must be in a file"),
        ([], {"PROJECTOR_DATABASE_URL": "sqlite:///file::memory:?cache=shared"}, "events must be in a file"),
        ([], {"PROJECTOR_DATABASE_URL": f"sqlite:///{__file__}"}, "file is not a database"),
        (["--host", "no.such.host.invalid"], {"PROJECTOR_CALLBACK_TOKEN": "t", "PROJECTOR_READ_TOKENS": "t"}, "--host"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], named: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "projector", "serve", "--port", "0", *arguments],
        env=environment(tmp_path / "events.db", **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr


def test_an_invalid_or_taken_port_is_reported(town: Server, tmp_path: Path) -> None:
    taken = town.url.rpartition(":")[2]
    for port, why in (
        ("99999", "is not a whole number from 0 to 65535"),
        (taken, "choose another with --host and --port"),
    ):
        done = run_cli(tmp_path / "events.db", "serve", "--port", port)
        assert done.returncode == 2
        assert why in done.stderr.splitlines()[-1]
