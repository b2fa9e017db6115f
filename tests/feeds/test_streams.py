"""Streams of server-sent events: resume, filters, notices, limits, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.feeds.sse import items, stream
from tests.feeds.test_pages import create, join
from tests.processes.test_roles import connected, response
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.running import Server

pytestmark = pytest.mark.usefixtures("kind")


def test_a_stream_says_where_it_is_and_goes_on_live(server: Server, new_group: Callable[[], str]) -> None:
    group_id = new_group()
    position = create(server, group_id)
    server.get("/v1/groups", wait_for=position)
    with stream(f"{server.url}/v1/changes?after={position - 1}") as events:
        hello, created, caught_up = next(events), next(events), next(events)
        assert (hello.name, hello.data["after"].split("-")[0]) == ("hello", str(position - 1))
        assert hello.data["head"] >= position
        assert (created.name, created.data["position"], created.last_id) == (
            "change",
            position,
            created.data["cursor"],
        )
        assert (caught_up.name, caught_up.data["position"]) == ("caught-up", position)
        joined = join(server, group_id, "bob")
        assert next(events).data["position"] == joined


def test_a_reader_that_comes_back_gets_what_it_missed_and_its_last_event_beats_the_address(
    server: Server, new_group: Callable[[], str]
) -> None:
    group_id = new_group()
    position = create(server, group_id)
    for feed in ("changes", "events"):
        address = f"{server.url}/v1/{feed}?after={position - 1}&group_id={group_id}"
        with stream(address) as events:
            seen = next(items(events))
        missed = [join(server, group_id, f"{feed} {number}") for number in range(3)]
        with stream(address, last_event_id=seen.last_id) as events:
            found = items(events)
            skipped = [] if feed == "changes" else [next(found) for _ in range(3)]
            assert all(event.data["position"] < missed[0] for event in skipped)
            assert [next(found).data["position"] for _ in missed] == missed


def test_a_cursor_of_another_history_resets_the_stream(server: Server) -> None:
    with stream(f"{server.url}/v1/changes", last_event_id="1-01234567-0") as events:
        (reset,) = events
    assert (reset.name, reset.data["type"]) == ("reset", "history-changed")


def test_requests_that_cannot_be_streamed_are_refused(server: Server) -> None:
    headers = {"Accept": "text/event-stream"}
    assert server.client.get(f"{server.url}/v1/changes?wait=1", headers=headers).status_code == 400
    assert server.client.get(f"{server.url}/v1/changes", headers={**headers, "Last-Event-ID": "x"}).status_code == 400
    assert server.client.head(f"{server.url}/v1/changes", headers=headers).status_code == 200


@pytest.mark.slow
def test_a_stop_of_the_server_ends_streams_at_once_with_a_goodbye(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server, stream(f"{server.url}/v1/changes") as events:
        assert next(events).name == "hello"
        assert next(events).name == "caught-up"
        server.process.terminate()
        assert [(event.name, event.data) for event in events] == [("bye", {"reason": "stopping"})]
        assert server.stop() == 0


@pytest.mark.slow
def test_a_stop_of_the_server_ends_requests_that_wait(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server, connected(server) as waiting:
        waiting.sendall(b"GET /v1/changes?after=latest&wait=30 HTTP/1.1\r\nHost: x\r\n\r\n")
        with stream(f"{server.url}/v1/changes") as events:
            assert next(events).name == "hello", "by then the other request, which was sent before, waits"
            server.process.terminate()
            assert response(waiting)[0] == 503
        assert server.stop() == 0


@pytest.mark.slow
def test_a_token_has_its_share_of_the_streams_and_other_queries_go_on(tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="secret,other") as server:
        opened = [stream(f"{server.url}/v1/changes", token="secret") for _ in range(20)]
        readers = [one.__enter__() for one in opened]
        for events in readers:
            assert next(events).name == "hello"
        with pytest.raises(httpx2.HTTPStatusError, match="503"), stream(f"{server.url}/v1/changes", token="secret"):
            pass
        with stream(f"{server.url}/v1/changes", token="other") as events:
            assert next(events).name == "hello"
        opened.pop().__exit__(None, None, None)
        headers = {"Authorization": "Bearer secret"}
        assert server.client.get(f"{server.url}/v1/groups", headers=headers).status_code == 200
        assert create(server, "g") == 1
        for events in readers[:-1]:
            assert next(items(events)).data["position"] == 1
        for one in opened:
            one.__exit__(None, None, None)


@pytest.mark.slow
def test_a_forgotten_user_reaches_followers_as_notices_and_no_message_names_the_id_afterwards(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        create(server, "g", owner="ann")
        position = create(server, "h", owner="bob")
        server.get("/v1/groups", wait_for=position)
        with stream(f"{server.url}/v1/changes") as events:
            found = items(events)
            cursor = [next(found).last_id for _ in range(2)][-1]
            assert run_cli(database, "forget", "--yes", "ann").returncode == 0
            forgotten, reset = next(found), next(found)
            assert (forgotten.name, forgotten.data["type"], forgotten.data["positions"]) == (
                "notice",
                "user.forgotten",
                [1],
            )
            assert (reset.data["type"], reset.data["group_id"], reset.data["position"]) == ("group.reset", "g", 2)
            joined = join(server, "g", "cyd")
            change = next(found)
            assert change.data["position"] == joined
        page = server.get("/v1/changes", after=cursor).json()
        assert [message.get("type") for message in page["messages"]] == ["user.forgotten", "group.reset", None]
        assert server.get("/v1/changes", after=cursor, group_id="h").json()["messages"] == page["messages"][:1]
        everything = server.get("/v1/changes")
        assert "ann" not in everything.text
        assert len(everything.json()["messages"]) == 3
        assert [notice["type"] for notice in server.get("/v1/events", after=cursor).json()["notices"]] == [
            "user.forgotten",
            "group.reset",
        ]
        again = [message["cursor"] for message in page["messages"]]
        assert server.get("/v1/changes", after=again[0]).json()["messages"] == page["messages"][1:]
