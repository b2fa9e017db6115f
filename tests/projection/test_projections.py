"""Projections over a real read model: after any batches, restarts and failures it has the oracle's state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.bootstrap import PROJECTIONS
from projector.domain.events import GroupCreated, MembersJoined, Recorded, UndecodableEvent
from projector.projection import project
from projector.projection.groups import GroupsProjection
from projector.projection.refold import refold
from projector.projection.slices import slice_streams
from projector.read_model.group_filter import GroupFilter
from projector.read_model.rows import SetAside
from projector.read_model.schema import PROJECTION_TABLES
from tests import shown
from tests.domain import facts as f
from tests.domain.strategies import any_history
from tests.processes.databases import VERSIONS, begin_read_model, rows
from tests.projection.carrying import (
    NOW,
    assert_counts_are_the_rows,
    assert_shows,
    carry,
    expected,
    notes,
    opened,
    scratch,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from projector.projection import Projection
    from projector.projection.slices import StreamSlice
    from projector.read_model import ReadModel, Tables
    from projector.read_model.unit_of_work import UnitOfWork

pytestmark = pytest.mark.usefixtures("kind")


class Failing:
    """A projection that fails on certain events, after it has written the rows of the whole batch."""

    def __init__(self, inner: Projection, at: int | set[int]) -> None:
        self.name, self.version = inner.name, inner.version
        self._inner = inner
        self._at = {at} if isinstance(at, int) else at

    def apply(self, tables: Tables, slices: Sequence[StreamSlice]) -> None:
        self._inner.apply(tables, slices)
        events = [recorded for piece in slices for recorded in piece.events]
        if broken := [recorded.position for recorded in events if recorded.position in self._at]:
            raise ValueError(f"cannot fold {broken[0]}")


@pytest.fixture
def database(kind: str, tmp_path: Path) -> Path:
    database = tmp_path / "events.db"
    begin_read_model(database).close()
    return database


def refold_set_aside(read_model: ReadModel, projections: Sequence[Projection], history: Sequence[Recorded]) -> None:
    """Refold every group with an event that a projection has set aside."""
    with read_model.transaction() as work:
        for projection in projections:
            noted = {note.position for note in work.set_aside_events() if note.projection == projection.name}
            for group_id in {recorded.event.group_id for recorded in history if recorded.position in noted}:
                stream = [recorded for recorded in history if recorded.event.group_id == group_id]
                refold(work, projection, group_id, filter(None, [stream[:3], stream[3:]]), now_ms=NOW)


@st.composite
def batches(draw: st.DrawFn, history: Sequence[Recorded]) -> list[Sequence[Recorded]]:
    """Cut a history into batches; each may overlap the previous batch by some events."""
    cuts = sorted(draw(st.sets(st.integers(0, len(history)), max_size=4)) | {len(history)})
    starts = [max(0, cut - draw(st.integers(0, 3))) for cut in [0, *cuts[:-1]]]
    return [history[start:end] for start, end in zip(starts, cuts, strict=True)]


# --- whatever the batches --------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(st.data())
def test_any_history_in_any_batches_over_any_restarts_shows_what_the_oracle_says(data: st.DataObject) -> None:
    history = data.draw(any_history)
    with scratch() as database:
        for batch in data.draw(batches(history)):
            with opened(database) as read_model:
                carry(read_model, batch, data.draw(st.permutations(PROJECTIONS)))
        assert_shows(database, history)
        with snapshot(database) as now:
            assert now.positions() == dict.fromkeys(VERSIONS, len(history))


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_the_state_between_two_batches_is_that_of_the_events_so_far(data: st.DataObject) -> None:
    history = data.draw(any_history)
    with scratch() as database, opened(database) as read_model:
        for batch in data.draw(batches(history)):
            carry(read_model, batch, PROJECTIONS)
            assert_shows(database, history[: batch[-1].position if batch else 0])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_one_by_one_and_all_at_once_leave_the_same_rows(data: st.DataObject) -> None:
    history = data.draw(any_history)
    with scratch("at_once") as at_once, scratch("one_by_one") as one_by_one:
        with opened(at_once) as read_model:
            carry(read_model, history, PROJECTIONS)
        with opened(one_by_one) as read_model:
            for recorded in history:
                carry(read_model, [recorded], PROJECTIONS)
        assert rows(at_once) == rows(one_by_one)


def test_an_empty_batch_is_nothing_to_do(database: Path) -> None:
    with opened(database) as read_model:
        carry(read_model, [], PROJECTIONS)
    with snapshot(database) as now:
        assert now.positions() == dict.fromkeys(VERSIONS, 0)


def test_events_that_concern_no_projection_still_move_every_checkpoint(database: Path) -> None:
    history = f.recorded([f.topic_created(0), f.joined(1, "ann", topic_id="t"), f.topics_dismissed(2)])
    with opened(database) as read_model:
        carry(read_model, history, PROJECTIONS)
    with snapshot(database) as now:
        assert now.positions() == dict.fromkeys(VERSIONS, 3)
        assert now.groups(GroupFilter(), "", 10) == []
        assert now.group(f.GROUP) is None
        assert not now.knows_user("ann")


def test_a_dismissal_and_a_late_creation_in_later_batches_move_those_already_in_the_rows(database: Path) -> None:
    story = f.recorded(
        [f.created(0, "ann", "bob"), f.dismissed(4), f.joined(6, "cyd"), f.created(5), f.dismissed(9), f.created(10)]
    )
    rosters = []
    with opened(database) as read_model:
        for recorded in story:
            carry(read_model, [recorded], PROJECTIONS)
            with snapshot(database) as now:
                rosters.append([member["user_id"] for member in shown.members(now, f.GROUP)])
            assert_shows(database, story[: recorded.position])
    assert rosters == [["ann", "bob"], [], [], ["cyd"], [], []]


# --- a projection that fails -----------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None, max_examples=45)
@given(st.data())
def test_what_one_projection_cannot_apply_waits_while_all_else_moves_on_and_is_right_after_its_retry(
    data: st.DataObject,
) -> None:
    history = data.draw(any_history.filter(bool))
    broken = data.draw(st.sets(st.sampled_from([recorded.position for recorded in history]), min_size=1))
    victim = data.draw(st.sampled_from(PROJECTIONS))
    failing = [Failing(projection, broken) if projection is victim else projection for projection in PROJECTIONS]
    with scratch() as database:
        for batch in data.draw(batches(history)):
            with opened(database) as read_model:
                carry(read_model, batch, failing)
        with opened(database) as read_model:
            assert notes(read_model) == [
                SetAside(victim.name, position, f"ValueError: cannot fold {position}", NOW)
                for position in sorted(broken)
            ]
            assert_as_if_never_happened(
                database, victim, [recorded for recorded in history if recorded.position not in broken]
            )
            refold_set_aside(read_model, [victim], history)
            assert notes(read_model) == []
        assert_shows(database, history)
        with snapshot(database) as now:
            assert now.positions() == dict.fromkeys(VERSIONS, len(history))


def assert_as_if_never_happened(database: Path, victim: Projection, rest: Sequence[Recorded]) -> None:
    """Compare the victim's tables with those of a read model that never had the broken events."""
    with scratch("other") as other:
        with opened(other) as read_model:
            carry(read_model, rest, PROJECTIONS)
        assert [rows(database)[table.name] for table in PROJECTION_TABLES[victim.name]] == [
            rows(other)[table.name] for table in PROJECTION_TABLES[victim.name]
        ]


def test_an_event_that_cannot_be_decoded_is_set_aside_by_every_projection_with_its_reason(database: Path) -> None:
    first, third = f.recorded([f.created(0, "ann")])[0], f.recorded([f.joined(2, "bob")], after=2)[0]
    undecodable = UndecodableEvent(
        group_id=f.GROUP, occurred_at=0, recorded_at=0, stored_type="MembersMerged", reason="no such event here"
    )
    with opened(database) as read_model:
        carry(read_model, [first, Recorded(2, undecodable), third], PROJECTIONS)
        assert sorted(notes(read_model)) == [
            SetAside(name, 2, "CannotApply: no such event here", NOW) for name in sorted(VERSIONS)
        ]
        with snapshot(database) as now:
            assert now.set_aside_events() == notes(read_model)
            assert now.positions() == dict.fromkeys(VERSIONS, 3)
        assert_shows(database, [first, third])
        readable = f.recorded([f.left(1, "ann")], after=1)[0]
        refold_set_aside(read_model, PROJECTIONS, [first, readable, third])
        assert notes(read_model) == []
        assert_shows(database, [first, readable, third])


def test_a_group_folded_again_in_vain_is_as_before_and_keeps_the_note(database: Path) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    failing = Failing(PROJECTIONS[0], 2)
    with opened(database) as read_model:
        carry(read_model, history, [failing, *PROJECTIONS[1:]])
        before = rows(database)
        refold_set_aside(read_model, [failing], history)
        assert rows(database) == before


def test_a_value_that_the_database_refuses_is_the_events_fault_and_not_the_databases(database: Path) -> None:
    too_late = Recorded(2, MembersJoined(group_id=f.GROUP, occurred_at=2**70, recorded_at=0, members=("bob",)))
    surrogate = Recorded(3, GroupCreated(group_id=f.GROUP, occurred_at=1, recorded_at=0, members=("\ud800",)))
    fine = f.recorded([f.created(0, "ann")])[0]
    with opened(database) as read_model:
        carry(read_model, [fine, too_late, surrogate], PROJECTIONS)
        assert {note.position for note in notes(read_model) if note.projection == "groups"} == {2, 3}
        with snapshot(database) as now:
            assert [member["user_id"] for member in shown.members(now, f.GROUP)] == ["ann"]
    assert_counts_are_the_rows(database)


# --- rows and checkpoint, together or not at all ---------------------------------------------------------------------


class Stop(BaseException):
    """An exception that neither an event nor a database raises."""


def break_off(work: UnitOfWork, history: Sequence[Recorded], error: type[BaseException]) -> None:
    with work.advance("groups", through=history[-1].position) as tables:
        GroupsProjection().apply(tables, slice_streams(history))
        raise error


def break_off_after(read_model: ReadModel, history: Sequence[Recorded]) -> None:
    with read_model.transaction() as work:
        with work.advance("groups", through=history[-1].position) as tables:
            GroupsProjection().apply(tables, slice_streams(history))
        raise Stop


@pytest.mark.parametrize("error", [KeyError, Stop])
def test_an_exception_while_the_tables_are_out_leaves_rows_and_checkpoint_as_before(
    database: Path, error: type[BaseException]
) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(database) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        before = rows(database)
        with read_model.transaction() as work:
            with pytest.raises(error):
                break_off(work, history[1:], error)
            assert work.checkpoints()["groups"].position == 1
        assert rows(database) == before
        with pytest.raises(Stop):
            break_off_after(read_model, history[1:])
        assert rows(database) == before
        carry(read_model, history, PROJECTIONS)
    assert_shows(database, history)


def test_what_is_rolled_back_is_undone_alone_and_the_rest_of_the_transaction_commits(database: Path) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(database) as read_model, read_model.transaction() as work:
        with work.advance("groups", through=1) as tables:
            GroupsProjection().apply(tables, slice_streams(history[:1]))
        with pytest.raises(KeyError):
            break_off(work, history[1:], KeyError)
    assert_shows(database, history[:1])
    with snapshot(database) as now:
        assert now.positions() == {"groups": 1}


def test_a_checkpoint_never_moves_back(database: Path) -> None:
    with opened(database) as read_model, read_model.transaction() as work:
        for through in (5, 3):
            with work.advance("groups", through=through):
                pass
        assert work.checkpoints()["groups"].position == 5


def test_a_reader_sees_all_of_a_transaction_or_nothing_of_it(database: Path) -> None:
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(database) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        with snapshot(database) as earlier:
            assert earlier.positions() == dict.fromkeys(VERSIONS, 1)
            with read_model.transaction() as work:
                project(work, PROJECTIONS, history, now_ms=NOW)
                with snapshot(database) as meanwhile:
                    assert shown.stored(meanwhile) == expected(history[:1])
            assert shown.stored(earlier) == expected(history[:1])
        with snapshot(database) as later:
            assert later.positions() == {"groups": 2}


# --- versions --------------------------------------------------------------------------------------------------------


def test_rows_of_another_version_are_left_to_it(database: Path) -> None:
    begin_read_model(database, VERSIONS | {"groups": 0}).close()
    history = f.recorded([f.created(0, "ann", name="n"), f.filled(1), f.joined(2, "bob")])
    with opened(database) as read_model:
        carry(read_model, history, PROJECTIONS)
    with snapshot(database) as now:
        assert now.positions() == {"groups": 0}
        assert now.group(f.GROUP) is None


# --- queries ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=45)
@given(st.data())
def test_every_filter_and_every_page_size_lists_what_the_oracle_lists(data: st.DataObject) -> None:
    history = [
        Recorded(at, event)
        for at, event in enumerate(
            (
                f.profile(at, group_id=group_id, name=name, group_type=group_type)
                for at, (group_id, name, group_type) in enumerate(data.draw(some_groups))
            ),
            start=1,
        )
    ]
    ends = [f.filled(50, group_id=recorded.event.group_id) for recorded in history[::2]]
    ends += [f.dismissed(60, group_id=recorded.event.group_id) for recorded in history[::3]]
    history += f.recorded(ends, after=len(history))
    condition = GroupFilter(
        type=data.draw(st.sampled_from([None, "Public", "Private"])),
        status=data.draw(st.sampled_from([None, "active", "dismissed"])),
        is_full=data.draw(st.sampled_from([None, True, False])),
        prefix=data.draw(st.sampled_from([None, *NAMES])),
    )
    expected_ids = [group_id for group_id, (group, _) in expected(history).items() if matches(group, condition)]
    limit = data.draw(st.integers(1, 4))
    with scratch() as database:
        with opened(database) as read_model:
            carry(read_model, history, PROJECTIONS)
        with snapshot(database) as now:
            in_pages: list[str] = []
            while page := now.groups(condition, in_pages[-1] if in_pages else "", limit):
                assert len(page) <= limit
                in_pages += [state.group_id for state in page]
    assert in_pages == expected_ids


NAMES = ("a", "A", "ab", "a%", "a_", "\U0010ffff", "\ud7ff", "é", "\u0000")
some_groups = st.lists(
    st.tuples(
        st.text(st.sampled_from("aAb%_\U0010ffff\ud7ff\u0000é"), min_size=1, max_size=3),
        st.none() | st.text(st.sampled_from("aAb%_\U0010ffff\ud7ff\u0000é"), max_size=3),
        st.sampled_from([None, "Public", "Private"]),
    ),
    max_size=8,
    unique_by=lambda group: group[0],
)


def matches(group: dict[str, Any], condition: GroupFilter) -> bool:
    prefix = condition.prefix or ""
    return (
        condition.type in (None, group["type"])
        and condition.status in (None, group["status"])
        and condition.is_full in (None, group["is_full"])
        and (group["group_id"].startswith(prefix) or (group["name"] or "").startswith(prefix))
    )


def test_members_and_a_users_groups_come_in_pages_without_gap_or_repeat(database: Path) -> None:
    users = [f"u{number:02d}" for number in range(11)]
    history = f.recorded(
        [f.joined(0, *users), *(f.joined(1, "u05", group_id=f"g{number}") for number in range(5)), f.left(2, "u03")]
    )
    with opened(database) as read_model:
        carry(read_model, history, PROJECTIONS)
    with snapshot(database) as now:
        seen: list[str] = []
        while page := shown.members(now, f.GROUP, seen[-1] if seen else "", 3):
            seen += [member["user_id"] for member in page]
        assert seen == [user for user in users if user != "u03"]
        groups: list[str] = []
        while page := now.groups_of("u05", groups[-1] if groups else "", 2):
            groups += [membership.group_id for membership in page]
        assert groups == [f.GROUP, "g0", "g1", "g2", "g3", "g4"]
        assert now.knows_user("u03")
        assert not now.knows_user("u99")


@settings(deadline=None, max_examples=30)
@given(any_history.filter(bool))
def test_a_group_folded_again_has_the_rows_it_had(history: list[Recorded]) -> None:
    with scratch() as database, opened(database) as read_model:
        carry(read_model, history, PROJECTIONS)
        before = rows(database)
        group_id = history[-1].event.group_id
        stream = [recorded for recorded in history if recorded.event.group_id == group_id]
        with read_model.transaction() as work:
            for projection in PROJECTIONS:
                refold(work, projection, group_id, filter(None, [stream[:3], stream[3:]]), now_ms=NOW)
        assert rows(database) == before
