"""The invariant: the state at a position, with all messages after it applied, is the state at any later position."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.feeds.changes import Changes
from projector.feeds.cursor import FeedCursor
from projector.feeds.folded_group import Past
from projector.feeds.messages import change_message
from tests import oracle
from tests.domain import facts as f
from tests.domain.strategies import any_history
from tests.feeds.follower import Follower, kept
from tests.time_travel.test_time_travel import examples, projected, small_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from projector.domain.events import Recorded
    from tests.time_travel.test_time_travel import Opened

__all__ = ["small_blocks"]

pytestmark = pytest.mark.usefixtures("kind")


def messages_of(opened: Opened, changes: Changes, events: Sequence[Recorded]) -> dict[int, dict[str, Any]]:
    """The messages about consecutive events, as JSON shows them, by position."""
    past = Past(opened.store, opened.session.stored_states)
    return {
        position: msgspec.json.decode(msgspec.json.encode(message))
        for position, difference in changes.fold(past, events).items()
        if (message := change_message(difference, FeedCursor(position, "00000000", 0)))
    }


def state_at(history: Sequence[Recorded], position: int) -> dict[str, Any]:
    return oracle.everything(oracle.facts(history[:position]))


def pages(history: Sequence[Recorded], data: st.DataObject) -> Iterator[Sequence[Recorded]]:
    ends = sorted(data.draw(st.sets(st.integers(0, len(history)), max_size=4)) | {0, len(history)})
    return (history[start:end] for start, end in pairwise(ends))


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_the_state_with_all_later_messages_applied_is_the_later_state_whatever_the_order_of_delivery() -> None:
    @examples(60)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        history = data.draw(any_history)
        start = data.draw(st.integers(0, len(history)))
        with projected(history, data.draw(st.lists(st.integers(0, len(history)), max_size=3))) as opened:
            changes = Changes(max_weight=data.draw(st.sampled_from([0, 3, 1_000])))
            follower = Follower(lambda group_id, position: deepcopy(state_at(history, position).get(group_id)))
            follower.groups = deepcopy(state_at(history, start))
            for page in pages(history, data):
                messages = messages_of(opened, changes, page)
                for recorded in page:
                    if recorded.position <= start:
                        continue
                    if message := messages.get(recorded.position):
                        assert message["changes"]
                        follower.apply(message)
                        once = deepcopy(follower.groups)
                        follower.apply(message)
                        assert follower.groups == once, "a message applied again changes nothing"
                    assert kept(follower.groups) == kept(state_at(history, recorded.position))

    check()


def changes_of(*events: Any) -> list[tuple[int, bool, list[tuple[str, str | None]]]]:
    """Position, `late`, and types with users or fields of each message about these events."""
    history = f.recorded(events)
    with projected(history) as opened:
        return [
            (
                position,
                message["late"],
                [(change["type"], change.get("user_id") or change.get("field")) for change in message["changes"]],
            )
            for position, message in sorted(messages_of(opened, Changes(), history).items())
        ]


def test_each_message_says_what_its_event_changed() -> None:
    assert changes_of(
        f.created(1, "ann", owner="ann", name="a"),
        f.joined(2, "bob"),
        f.joined(2, "bob"),
        f.profile(3, name="b"),
        f.profile(4, name="b"),
        f.filled(5),
        f.owned(6, "bob"),
        f.left(7, "ann"),
        f.dismissed(8),
    ) == [
        (1, False, [("group.created", None), ("member.joined", "ann")]),
        (2, False, [("member.joined", "bob")]),
        (4, False, [("group.updated", "name")]),
        (6, False, [("group.filled", None), ("group.updated", "member_limit"), ("group.updated", "full_at")]),
        (7, False, [("group.updated", "owner"), ("member.updated", "ann"), ("member.updated", "bob")]),
        (
            8,
            False,
            [
                ("group.reopened", None),
                ("group.updated", "member_limit"),
                ("member.left", "ann"),
            ],
        ),
        (9, False, [("group.dismissed", None)]),
    ]


def test_what_happened_before_something_known_about_the_same_subject_is_late() -> None:
    assert changes_of(
        f.joined(10, "ann", "bob"),
        f.profile(20, name="b"),
        f.left(5, "cyd"),
        f.joined(4, "cyd"),
        f.changed(11, "ann", role="Admin"),
        f.profile(15, introduction="i"),
        f.profile(15, name="a", notification="n"),
        f.created(1, "dan"),
        f.joined(3, "eve"),
        f.dismissed(2),
    ) == [
        (1, False, [("group.created", None), ("member.joined", "ann"), ("member.joined", "bob")]),
        (2, False, [("group.updated", "name")]),
        (5, False, [("member.updated", "ann")]),
        (6, False, [("group.updated", "introduction")]),
        (7, True, [("group.updated", "notification")]),
        (8, True, [("group.updated", "roster_complete"), ("group.updated", "created_at"), ("member.joined", "dan")]),
        (9, False, [("member.joined", "eve")]),
        (10, True, [("group.dismissed", None)]),
    ]


def test_a_group_in_which_an_event_decides_about_users_whom_it_does_not_name_is_to_be_read_again() -> None:
    assert changes_of(
        f.created(1, "ann"),
        f.dismissed(2),
        f.joined(4, "bob"),
        f.created(3, "cyd"),
        f.joined(6, "dan"),
        f.dismissed(0),
    ) == [
        (1, False, [("group.created", None), ("member.joined", "ann")]),
        (2, False, [("group.dismissed", None)]),
        (4, True, [("group.reset", None)]),
        (5, False, [("member.joined", "dan")]),
    ]
