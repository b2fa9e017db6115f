"""Access: tokens replaced without a gap, a secret callback path, separate addresses, and no secrets in the log."""

from __future__ import annotations

import http.client
import os
import re
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import pytest

from projector.http.front_door import OPEN_PATHS
from projector.http.routes import ROUTES
from tests.processes.traffic import callback
from tests.running import Server, run_cli, serving, signature

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # every test here starts processes

SECRETS = {"old-secret", "new-secret", "reading-secret", "plain-secret"}


def post(server: Server, token: str, path: str = "/callback") -> int:
    body, now = callback(int(time.time_ns() % 10**9), 1), int(time.time())
    query = {"CallbackCommand": body["CallbackCommand"], "SdkAppid": str(server.app_id)}
    query |= {"Sign": signature(token, now), "RequestTime": str(now)}
    return server.client.post(f"{server.url}{path}", params=query, json=body).status_code


def test_while_a_token_is_replaced_callbacks_signed_with_either_are_taken(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_CALLBACK_TOKEN="old-secret, new-secret") as server:
        assert [post(server, token) for token in ("old-secret", "new-secret", "other", "")] == [200, 200, 403, 403]
        assert post(server, "old-secret, new-secret") == 403


def test_callbacks_are_taken_where_the_settings_say_and_nowhere_else(tmp_path: Path) -> None:
    database, path = tmp_path / "events.db", "/in/4c1bd1a9"
    with serving(database, PROJECTOR_CALLBACK_PATH=path) as server:
        body = callback(1, 1)
        query = f"CallbackCommand={body['CallbackCommand']}&SdkAppid={server.app_id}"
        for there, status in ((path, 200), ("/callback", 404), (f"{path}/", 404), ("/in", 404)):
            assert server.client.post(f"{server.url}{there}?{query}", json=body).status_code == status
        command = ["simulate", "--url", server.url, "--callbacks", "50", "--groups", "3", "--into-existing"]
        assert run_cli(database, *command, PROJECTOR_CALLBACK_PATH=path).returncode == 0


@pytest.mark.parametrize("path", ["callback", "/", "/v1", "/v1/in", "/metrics", "/a b", "/a?b", "/ä", "/a/"])
def test_a_path_that_cannot_be_one_is_refused_in_one_line(tmp_path: Path, path: str) -> None:
    done = run_cli(tmp_path / "events.db", "serve", PROJECTOR_CALLBACK_PATH=path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "PROJECTOR_CALLBACK_PATH" in done.stderr


def test_each_reader_has_a_token_and_no_name_opens_the_door(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="board:reading-secret, plain-secret") as server:
        assert server.logged(0, event="serving")[0]["readers"] == "board, unnamed"
        for path in ("/v1/groups", "/metrics"):
            for token, status in (
                ("reading-secret", 200),
                ("plain-secret", 200),
                ("board", 401),
                ("board:reading-secret", 401),
                ("unnamed", 401),
                ("", 401),
            ):
                response = httpx2.get(f"{server.url}{path}", headers={"Authorization": f"Bearer {token}".strip()})
                assert response.status_code == status, (path, token)


def test_every_path_but_the_open_ones_needs_a_token_however_it_is_spelled(tmp_path: Path) -> None:
    routes = [re.sub(r"{\w+}", "x", route.path) for route in ROUTES]
    closed = [
        *routes,
        "/v1/status",
        "/metrics",
        "/metrics%0A",
        "/metrics/",
        "//metrics",
        "/METRICS",
        "/%6Detrics",
        "/readyz%0A",
        "/nothing",
        "/",
    ]
    closed += [f"{path}{end}" for path in routes for end in ("%0A", "/", "%00", ";x")] + [
        "/livez/../metrics",
        "/v1",
        "/v2/x",
    ]
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="plain-secret") as server:
        for path in closed:
            for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
                assert bare_request(server, method, path) == 401, (method, path)
        assert {path: bare_request(server, "GET", path) for path in OPEN_PATHS} == dict.fromkeys(OPEN_PATHS, 200)
        assert bare_request(server, "GET", "/%6Detrics", "plain-secret") == 200
        assert bare_request(server, "GET", "/nothing", "plain-secret") == 404


def test_without_a_token_readiness_is_one_word(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="plain-secret") as server:
        assert httpx2.get(f"{server.url}/readyz").json() == {"status": "ready"}
        allowed = {"Authorization": "Bearer plain-secret"}
        assert httpx2.get(f"{server.url}/readyz", headers=allowed).json()["head"] == 0


def bare_request(server: Server, method: str, target: str, token: str | None = None) -> int:
    """Send a request whose target no client library normalises; return the status."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.putrequest(method, target, skip_accept_encoding=True)
    if token:
        connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    with closing(connection), connection.getresponse() as response:
        response.read()
        return response.status


def test_a_cached_response_is_not_sent_without_a_token(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="plain-secret") as server:
        allowed = {"Authorization": "Bearer plain-secret"}
        for _ in range(2):
            assert httpx2.get(f"{server.url}/v1/groups", headers=allowed).status_code == 200
            assert httpx2.get(f"{server.url}/v1/groups").status_code == 401


def test_no_token_no_body_and_no_account_is_logged(tmp_path: Path) -> None:
    settings = {
        "PROJECTOR_CALLBACK_TOKEN": "old-secret,new-secret",
        "PROJECTOR_READ_TOKENS": "a:reading-secret,plain-secret",
    }
    with serving(tmp_path / "events.db", **settings) as server:
        assert post(server, "old-secret") == 200
        assert post(server, "other") == 403
        now = int(time.time())
        signed = {"Sign": signature("old-secret", now), "RequestTime": str(now)}
        named = {"GroupId": 7, "Operator_Account": "account-of-ann", "CallbackCommand": "Group.CallbackAfterGroupFull"}
        assert server.post(named, query=signed).status_code == 400
        assert server.post(b"no JSON account-of-ann", command="X", query=signed).status_code == 400
        server.get("/v1/users/account-of-ann/groups")
        assert server.stop() == 0
    log = "".join(server.raw_log)
    assert [secret for secret in (*SECRETS, "account-of-ann", signed["Sign"]) if secret in log] == []


def test_the_files_of_a_history_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    database, spool = tmp_path / "events.db", tmp_path / "spool.db"
    before = os.umask(0o022)
    try:
        with serving(database, PROJECTOR_SPOOL_PATH=str(spool)) as server:
            assert post(server, "") == 200
            assert run_cli(database, "replay").returncode == 0
            assert run_cli(database, "replay", "--projection", "profile").returncode == 0
            files = [file for file in tmp_path.iterdir() if not file.is_symlink()]
            assert len(files) > 6
            assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {
                file.name: "0o600" for file in files
            }
    finally:
        os.umask(before)


def test_a_database_that_others_can_read_is_named_at_the_start_and_left_as_it_is(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    database.touch(mode=0o644)
    with serving(database) as server:
        server.logged(0, event="the database can be read by other users", path=str(database))
    assert database.stat().st_mode & 0o777 == 0o644


def test_callbacks_can_have_an_address_of_their_own_that_serves_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", "--callbacks-address", "127.0.0.1:0") as server:
        inside, outside = server.url, server.logged(0, event="serving")[0]["callbacks_address"]
        body = callback(1, 1)
        query = {"CallbackCommand": body["CallbackCommand"], "SdkAppid": str(server.app_id)}
        assert httpx2.post(f"{inside}/callback", params=query, json=body).status_code == 404
        assert httpx2.post(f"{outside}/callback", params=query, json=body).status_code == 200
        for path in ("/v1/groups", "/metrics", "/readyz", "/openapi.json", "/nothing"):
            assert httpx2.get(f"{outside}{path}").status_code == 404
        assert httpx2.get(f"{outside}/livez").status_code == 200
        for path in ("/v1/groups?wait_for=1", "/metrics", "/openapi.json", "/livez"):
            assert httpx2.get(f"{inside}{path}").status_code == 200


def test_queries_can_have_an_address_of_their_own_and_a_receiver_its_metrics_inside(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    both = ["--queries-address", "127.0.0.1:0", "--callbacks-address", "127.0.0.1:0"]
    for arguments in (["--queries-address", "127.0.0.1:0"], both, [*both[2:], "--only", "callbacks"]):
        with serving(database, *arguments) as server:
            inside, outside = server.url, server.logged(0, event="serving")[0]["callbacks_address"]
            body = callback(1, 1)
            query = {"CallbackCommand": body["CallbackCommand"], "SdkAppid": str(server.app_id)}
            assert httpx2.post(f"{outside}/callback", params=query, json=body).status_code == 200
            assert httpx2.post(f"{inside}/callback", params=query, json=body).status_code == 404
            assert httpx2.get(f"{inside}/metrics").status_code == 200
            assert httpx2.get(f"{outside}/metrics").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--queries-address", "0.0.0.0:0"], "PROJECTOR_READ_TOKENS"),
        (["--queries-address", "127.0.0.1:0", "--only", "projections"], "--only"),
        (["--callbacks-address", "8000"], "HOST:PORT"),
        (["--callbacks-address", "127.0.0.1:99999"], "--callbacks-address"),
        (["--callbacks-address", "127.0.0.1:0", "--only", "queries"], "--only"),
        (["--callbacks-address", "0.0.0.0:0"], "PROJECTOR_CALLBACK_TOKEN"),
    ],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, arguments: list[str], named: str) -> None:
    done = run_cli(tmp_path / "events.db", "serve", "--port", "0", *arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
