"""A cached response equals the one that would be made again, and is not sent once the read model has changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from projector.http.conditional_response import ConditionalResponse
from projector.http.response_cache import ResponseCache
from tests.processes.databases import change_read_model
from tests.processes.traffic import callback
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from tests.running import Server

pytestmark = pytest.mark.usefixtures("kind")

JOIN = "Group.CallbackAfterNewMemberJoin"


def scope(path: str, query: str = "", method: str = "GET") -> dict[str, Any]:
    return {"method": method, "raw_path": path.encode(), "query_string": query.encode(), "headers": []}


def response(size: int = 1) -> ConditionalResponse:
    return ConditionalResponse('"1"', b"x" * size, ())


class Model:
    version: Hashable | None = 1


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def cache(model: Model) -> ResponseCache:
    return ResponseCache(lambda: model.version, max_bytes=4_000)


def test_a_response_is_found_by_its_whole_address_and_by_get_alone(cache: ResponseCache) -> None:
    cache.keep(scope("/v1/a", "limit=1"), 1, response())
    assert cache.find(scope("/v1/a", "limit=1")) == response()
    for other in (
        scope("/v1/a"),
        scope("/v1/a", "limit=2"),
        scope("/v1/b", "limit=1"),
        scope("/v1/a", "limit=1", "HEAD"),
    ):
        assert cache.find(other) is None
    cache.keep(scope("/v1/b", method="HEAD"), 1, response())
    assert cache.find(scope("/v1/b")) is None


def test_when_the_model_changes_all_responses_are_dropped(model: Model, cache: ResponseCache) -> None:
    cache.keep(scope("/v1/a"), 1, response())
    model.version = 2
    assert cache.find(scope("/v1/a")) is None
    model.version = 1
    assert cache.find(scope("/v1/a")) is None, "it is not used again even if the version looks the same"
    cache.keep(scope("/v1/a"), 1, response())
    cache.keep(scope("/v1/b"), 2, response())
    assert cache.find(scope("/v1/a")) is None


def test_a_response_made_while_the_model_changed_is_not_sent_again(model: Model, cache: ResponseCache) -> None:
    model.version = 2
    cache.keep(scope("/v1/a"), 1, response())
    assert cache.find(scope("/v1/a")) is None


def test_of_a_model_without_a_version_nothing_is_cached(model: Model, cache: ResponseCache) -> None:
    model.version = None
    cache.keep(scope("/v1/a"), None, response())
    assert cache.find(scope("/v1/a")) is None


def test_no_more_is_cached_than_there_is_room_for(cache: ResponseCache) -> None:
    for number in range(1_000):
        cache.keep(scope(f"/v1/{number}"), 1, response(200))
        kept = [other for other in range(number + 1) if cache.find(scope(f"/v1/{other}"))]
        assert len(kept) <= 3
        assert number in kept


def test_paths_and_headers_count_as_much_as_bodies(cache: ResponseCache) -> None:
    cache.keep(scope("/v1/a"), 1, response())
    cache.keep(scope("/v1/b", "q=" + "x" * 2_500), 1, response())
    assert cache.find(scope("/v1/a")) is None
    cache.keep(scope("/v1/c"), 1, ConditionalResponse('"1"', b"", ((b"link", b"y" * 2_500),)))
    assert cache.find(scope("/v1/b", "q=" + "x" * 2_500)) is None
    cache.keep(scope("/v1/d"), 1, response(4_000))
    assert cache.find(scope("/v1/d")) is None
    assert cache.find(scope("/v1/c")) is not None, "nothing is dropped for a response that is never kept"


def whole(server: Server, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    response = server.client.get(f"{server.url}{path}", headers=headers)
    return (
        response.status_code,
        response.content,
        {name: value for name, value in response.headers.items() if name != "date"},
    )


@pytest.mark.slow
def test_the_second_response_equals_the_first_to_the_byte_and_so_does_a_304(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server:
        for serial in range(1, 40):
            position = server.post(callback(serial, 1)).headers["Projector-Position"]
        for path in ("/v1/groups", "/v1/groups?limit=2", "/v1/groups/%40TGS%231/members", "/v1/users/user1/groups"):
            server.get(path + ("&" if "?" in path else "?") + f"wait_for={position}").raise_for_status()
            first = whole(server, path)
            assert whole(server, path) == first
            etag = first[2]["etag"]
            status, body, headers = whole(server, path, **{"If-None-Match": etag})
            assert (status, body, headers["etag"]) == (304, b"", etag)
            assert whole(server, path, **{"If-None-Match": f'"other", W/{etag}'}) == (status, body, headers)
            assert whole(server, path, **{"If-None-Match": '"other"'}) == first
            assert server.client.head(f"{server.url}{path}").content == b""


@pytest.mark.slow
def test_a_change_is_seen_whichever_process_makes_it(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    roster = "/v1/groups/g/members"

    def joined(server: Server, user: str, at: int) -> str:
        body = {"CallbackCommand": JOIN, "GroupId": "g", "NewMemberList": [{"Member_Account": user}], "EventTime": at}
        return server.post(body).headers["Projector-Position"]

    def users(server: Server) -> list[str]:
        for _ in range(2):
            seen = server.get(roster)
        return [member["user_id"] for member in json.loads(seen.content)["members"]]

    with serving(database) as server:
        server.get("/v1/groups", wait_for=joined(server, "ann", 1_680_000_000_000))
        assert users(server) == ["ann"]
        server.get("/v1/groups", wait_for=joined(server, "bob", 1_680_000_001_000))
        assert users(server) == ["ann", "bob"]
        change_read_model(database, "DELETE FROM members WHERE user_id = 'ann'")
        assert users(server) == ["bob"], "changed by another connection"
        assert run_cli(database, "replay").returncode == 1
        assert users(server) == ["ann", "bob"], "replaced by a replay"
        assert run_cli(database, "replay", "--rollback").returncode == 0
        assert users(server) == ["bob"], "and rolled back"
