"""What no event causes reaches followers: events that had been set aside and are applied, and other projections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.feeds.test_pages import create, join
from tests.kinds import change_events, on_postgresql, query_row
from tests.kinds import read_model as read_model_of
from tests.processes.databases import lose_read_model
from tests.processes.waiting import until
from tests.running import serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes


def set_topic(database: Path, position: int, topic: str) -> None:
    column = "notification_id" if on_postgresql() else "rowid"
    change_events(database, f"UPDATE stored_events SET topic = '{topic}' WHERE {column} = {position}")


def test_an_event_that_was_set_aside_reaches_followers_when_it_is_applied(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        create(server, "g")
        joined = join(server, "g", "bob")
        other = create(server, "h")
        server.get("/v1/groups", wait_for=other)
    set_topic(database, joined, "OfTomorrow")
    lose_read_model(database)
    with serving(database) as server:
        until(lambda: server.get("/v1/groups").status_code == 200, of=server)
        assert [*server.members("g", wait_for=other)] == ["ann"]
        page = server.get("/v1/changes").json()
        assert [message["position"] for message in page["messages"]] == [1, other]
        until(lambda: query_row(database, "SELECT COUNT(*) FROM announced WHERE name LIKE '%set aside%'")[0], of=server)
    set_topic(database, joined, "MembersJoined")
    with serving(database) as server:
        found = server.get("/v1/changes", after=page["cursor"], wait=20).json()
        (notice,) = found["messages"]
        assert (notice["type"], notice["group_id"], notice["position"]) == ("group.reset", "g", other)
        assert [*server.members("g")] == ["ann", "bob"]
        assert server.get("/v1/changes", after=found["cursor"]).json()["messages"] == []
        everything = server.get("/v1/changes").json()["messages"]
        assert [message["position"] for message in everything] == [1, joined, other]


def test_rows_of_another_projection_version_end_every_earlier_cursor(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        server.get("/v1/groups", wait_for=create(server, "g"))
        cursor = server.get("/v1/changes").json()["cursor"]
        until(lambda: query_row(database, "SELECT COUNT(*) FROM announced")[0], of=server)
    with read_model_of(database) as rows:
        rows.execute("UPDATE checkpoints SET version = version - 1")
    change_events(database, "UPDATE announced SET value = '{\"groups\":0}' WHERE name LIKE '%versions'")
    with serving(database) as server:
        until(lambda: server.get("/v1/changes", after=cursor).status_code == 409, of=server)
        again = server.get("/v1/changes").json()
        assert server.get("/v1/changes", after=again["cursor"]).status_code == 200
        response = server.get(server.group_path("g"))
        link = response.headers["Link"].partition(">")[0].removeprefix("<")
        assert server.get(link).status_code == 200
