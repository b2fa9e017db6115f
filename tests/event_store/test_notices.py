"""Notices are numbered in order, and announce what the read model says of itself once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from projector.event_store.notices import MAX_GROUPS, MAX_POSITIONS, Announcement, group_resets

if TYPE_CHECKING:
    from projector.event_store.notices import Notices
    from tests.event_store.databases import Database


@pytest.fixture
def notices(database: Database) -> Notices:
    return database.open().notices


def described(notices: Notices, after: int = 0) -> list[tuple[str, str | None]]:
    return [(notice.kind, notice.subject) for notice in notices.after(after, 10_000)]


def test_notices_are_numbered_in_the_order_in_which_they_are_added_and_seen_by_every_process(
    notices: Notices, database: Database
) -> None:
    assert (notices.newest(), notices.newest_history_change(), notices.after(0, 10)) == (0, 0, [])
    notices.add([Announcement("user.forgotten", "forgotten-1", [3, 5]), Announcement("group.reset", "a\0b")])
    notices.add([Announcement("history.changed"), Announcement("group.reset", "b")])
    elsewhere = database.open().notices
    assert (elsewhere.newest(), elsewhere.newest_history_change()) == (4, 3)
    assert [notice[:4] for notice in elsewhere.after(0, 2)] == [
        (1, "user.forgotten", "forgotten-1", [3, 5]),
        (2, "group.reset", "a\0b", None),
    ]
    assert described(elsewhere, after=2) == [("history.changed", None), ("group.reset", "b")]


def test_too_many_positions_are_left_out_and_too_many_groups_are_everything(notices: Notices) -> None:
    notices.add([Announcement("user.forgotten", "x", range(MAX_POSITIONS + 1))])
    assert notices.after(0, 1)[0].positions is None
    assert len(group_resets(map(str, range(MAX_GROUPS)))) == MAX_GROUPS
    assert group_resets(map(str, range(MAX_GROUPS + 1))) == [Announcement("history.changed")]


def test_the_first_read_model_is_no_news_and_a_later_one_is_once(notices: Notices, database: Database) -> None:
    notices.announce_read_model(1, {"groups": 1}, {7: "g"})
    assert notices.newest() == 0
    notices.announce_read_model(1, {"groups": 1}, {7: "g", 8: "g", 9: "h"})
    assert notices.newest() == 0, "events that are set aside change nothing"
    notices.announce_read_model(1, {"groups": 1}, {9: "h"})
    assert described(notices) == [("group.reset", "g")]
    database.open().notices.announce_read_model(1, {"groups": 1}, {9: "h"})
    assert notices.newest() == 1
    notices.announce_read_model(1, {"groups": 2}, {})
    assert described(notices, after=1) == [("history.changed", None)]
    notices.announce_read_model(1, {"groups": 2}, {})
    assert notices.newest() == 2


def test_read_models_of_two_schema_versions_are_announced_side_by_side_and_a_new_one_is_news(notices: Notices) -> None:
    notices.announce_read_model(1, {"groups": 1}, {7: "g"})
    notices.announce_read_model(2, {"groups": 1}, {})
    assert described(notices) == [("history.changed", None)]
    for schema, set_aside in ((1, {7: "g"}), (2, {}), (1, {7: "g"})):
        notices.announce_read_model(schema, {"groups": 1}, set_aside)
    assert notices.newest() == 1
