"""Feeds through real proxies, with the documented settings."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2
import pytest

from tests.feeds.sse import items, stream
from tests.feeds.test_pages import create, join
from tests.running import serving
from tests.system.proxies import PROXIES, proxying

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.system,  # proxies are needed
    pytest.mark.slow,
    pytest.mark.usefixtures("kind"),
    pytest.mark.parametrize("name", [*PROXIES]),
]

GROUP = "a/b %#é"


def test_each_message_arrives_when_it_is_sent_and_a_stream_resumes_and_says_goodbye(name: str, tmp_path: Path) -> None:
    with serving(tmp_path / "events.db", "--processes", "2") as server, proxying(name, server.url) as url:
        position = create(server, GROUP)
        server.get("/v1/groups", wait_for=position)
        with stream(f"{url}/v1/changes?after=latest") as events:
            assert [next(events).name for _ in range(2)] == ["hello", "caught-up"]
            for number in range(5):
                joined = join(server, GROUP, f"u{number}")
                event = next(events)
                assert event.data["position"] == joined, "it is not held back until the next one"
        missed = [join(server, GROUP, f"v{number}") for number in range(3)]
        with stream(f"{url}/v1/changes", last_event_id=event.last_id) as events:
            found = items(events)
            assert [next(found).data["position"] for _ in missed] == missed
            server.process.terminate()
            assert [event.data for event in events if event.name == "bye"] == [{"reason": "stopping"}]


def test_a_stream_without_changes_is_kept_alive(name: str, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "events.db") as server,
        proxying(name, server.url) as url,
        stream(f"{url}/v1/changes") as events,
    ):
        assert [next(events).name for _ in range(4)] == ["hello", "caught-up", "heartbeat", "heartbeat"]


def test_callbacks_links_and_long_polls_pass(name: str, tmp_path: Path) -> None:
    with serving(tmp_path / "events.db") as server, proxying(name, server.url) as url:
        direct, server.url = server.url, url
        position = create(server, GROUP)
        path = f"/v1/groups/{quote(GROUP, safe='')}"
        group = httpx2.get(f"{url}{path}?wait_for={position}").raise_for_status()
        link = group.headers["Link"].partition(">")[0].removeprefix("<")
        joined = join(server, GROUP, "bob")
        page = httpx2.get(f"{url}{link}&wait=20", timeout=30).json()
        assert [message["position"] for message in page["messages"]] == [joined]
        server.url = direct
