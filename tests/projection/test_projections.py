"""The projections over a real read model file: whatever batches, restarts and failures, it shows the oracle's state."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.domain.events import GroupCreated, MembersJoined, Recorded, UndecodableEvent
from projector.projection import project, refold
from projector.projection.fullness import FullnessProjection
from projector.projection.membership import MembershipProjection
from projector.projection.profile import ProfileProjection
from projector.projection.stretches import stretches
from projector.projection.timeline import TimelineProjection
from projector.read_model import GroupFilter, NoReadModel, ReadModelUnavailable, SetAside
from projector.read_model.schema import OWNED
from projector.read_model.sqlite import SQLiteQueries, SQLiteReadModel, create
from tests import oracle, shown
from tests.domain import facts as f
from tests.domain.strategies import GROUPS, USERS, any_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from projector.projection import Projection
    from projector.projection.stretches import Stretch
    from projector.read_model import Tables, Work
    from projector.read_model.sql_queries import SQLSnapshot

PROJECTIONS: tuple[Projection, ...] = (
    MembershipProjection(),
    ProfileProjection(),
    FullnessProjection(),
    TimelineProjection(),
)
VERSIONS = {projection.name: projection.version for projection in PROJECTIONS}
NOW = 1_700_000_000_000


class Failing:
    """A projection that breaks on one event, after having written the rows of the whole batch."""

    def __init__(self, inner: Projection, at: int | set[int]) -> None:
        self.name, self.version = inner.name, inner.version
        self._inner = inner
        self._at = {at} if isinstance(at, int) else at

    def apply(self, tables: Tables, batch: Sequence[Stretch]) -> None:
        self._inner.apply(tables, batch)
        events = [recorded for stretch in batch for recorded in stretch.events]
        if broken := [recorded.position for recorded in events if recorded.position in self._at]:
            raise ValueError(f"cannot fold {broken[0]}")


@contextmanager
def opened(path: Path) -> Iterator[SQLiteReadModel]:
    if not path.exists():
        create(str(path), VERSIONS)
    with closing(SQLiteReadModel(str(path))) as read_model:
        yield read_model


def notes(read_model: SQLiteReadModel) -> list[SetAside]:
    with read_model.committed() as now:
        return now.notes()


def folded_again(read_model: SQLiteReadModel, projections: Sequence[Projection], history: Sequence[Recorded]) -> None:
    """Fold every group again of which a projection has set an event aside."""
    with read_model.transaction() as work:
        for projection in projections:
            noted = {note.position for note in work.notes() if note.projection == projection.name}
            for group_id in {one.event.group_id for one in history if one.position in noted}:
                stream = [one for one in history if one.event.group_id == group_id]
                refold(work, projection, group_id, [stream[:3], stream[3:]], now_ms=NOW)


@contextmanager
def snapshot(path: Path) -> Iterator[SQLSnapshot]:
    with closing(SQLiteQueries(str(path))) as queries, queries.snapshot() as now:
        yield now


@contextmanager
def scratch() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        yield Path(directory, "read_model.db")


def carry(read_model: SQLiteReadModel, batch: Sequence[Recorded], projections: Sequence[Projection]) -> None:
    with read_model.transaction() as work:
        for projection in projections:
            project(work, projection, batch, now_ms=NOW)


def expected(history: Sequence[Recorded]) -> dict[str, Any]:
    return oracle.everything(oracle.facts(history))


def assert_shows(path: Path, history: Sequence[Recorded]) -> None:
    """Compare what the questions see, and what the tables hold, with what the oracle makes of the history."""
    state = expected(history)
    with snapshot(path) as now:
        assert shown.stored(now) == state
        assert now.counts()._asdict() == {
            "groups": len(state),
            "active_groups": sum(group["status"] == "active" for group, _ in state.values()),
            "full_groups": sum(group["is_full"] for group, _ in state.values()),
            "members": sum(len(members) for _, members in state.values()),
        }
        for group_id in GROUPS:
            found = now.group(group_id)
            assert (found and shown.group(found)) == state.get(group_id, (None,))[0]
            for user in USERS:
                member = now.member(group_id, user)
                assert (member and shown.member(member)) == state.get(group_id, ({}, {}))[1].get(user)
        for user in USERS:
            groups = [
                {"group_id": one.group_id, "role": seen["role"], "joined_at": seen["joined_at"]}
                for one in now.groups_of(user, "", 1000)
                if (seen := shown.member(one))
            ]
            assert groups == oracle.groups_of(oracle.facts(history), user)
    assert_counts_are_the_rows(path)


def assert_counts_are_the_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        disagreeing = connection.execute(
            "SELECT group_id, member_count FROM rosters WHERE member_count <>"
            " (SELECT COUNT(*) FROM members WHERE members.group_id = rosters.group_id AND standing = 1)"
        ).fetchall()
        homeless = connection.execute(
            "SELECT group_id, user_id FROM members WHERE group_id NOT IN (SELECT group_id FROM rosters)"
        ).fetchall()
    assert (disagreeing, homeless) == ([], [])


def dump(path: Path) -> dict[str, list[Any]]:
    """Return every row there is."""
    with closing(sqlite3.connect(path)) as connection:
        tables = ["checkpoints", "set_aside", *(table.name for owned in OWNED.values() for table in owned)]
        return {table: sorted(map(repr, connection.execute(f"SELECT * FROM {table}"))) for table in tables}


@st.composite
def batches(draw: st.DrawFn, history: Sequence[Recorded]) -> list[Sequence[Recorded]]:
    """Cut a history into batches; each may begin again some events before the end of the one before."""
    cuts = sorted(draw(st.sets(st.integers(0, len(history)), max_size=4)) | {len(history)})
    starts = [max(0, cut - draw(st.integers(0, 3))) for cut in [0, *cuts[:-1]]]
    return [history[start:end] for start, end in zip(starts, cuts, strict=True)]


# --- whatever the batches --------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_history_in_any_batches_over_any_restarts_shows_what_the_oracle_says(data: st.DataObject) -> None:
    history = data.draw(any_history)
    with scratch() as path:
        for batch in data.draw(batches(history)):
            with opened(path) as read_model:
                carry(read_model, batch, data.draw(st.permutations(PROJECTIONS)))
        assert_shows(path, history)
        with snapshot(path) as now:
            assert now.positions() == dict.fromkeys(VERSIONS, len(history))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_the_state_between_two_batches_is_that_of_the_events_so_far(data: st.DataObject) -> None:
    history = data.draw(any_history)
    with scratch() as path, opened(path) as read_model:
        for batch in data.draw(batches(history)):
            carry(read_model, batch, PROJECTIONS)
            assert_shows(path, history[: batch[-1].position if batch else 0])


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_one_by_one_and_all_at_once_leave_the_same_rows(data: st.DataObject) -> None:
    history = data.draw(any_history)
    with scratch() as at_once, scratch() as one_by_one:
        with opened(at_once) as read_model:
            carry(read_model, history, PROJECTIONS)
        with opened(one_by_one) as read_model:
            for recorded in history:
                carry(read_model, [recorded], PROJECTIONS)
        assert dump(at_once) == dump(one_by_one)


def test_what_was_applied_already_is_left_alone_and_costs_no_write(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob"), f.filled(2)])
    with opened(path) as read_model:
        carry(read_model, history, PROJECTIONS)
        before = dump(path)
        with closing(sqlite3.connect(path)) as watching:
            version = watching.execute("PRAGMA data_version").fetchone()
            carry(read_model, history, PROJECTIONS)
            carry(read_model, history[:2], PROJECTIONS)
            assert watching.execute("PRAGMA data_version").fetchone() == version
        assert dump(path) == before


def test_an_empty_batch_is_nothing_to_do(tmp_path: Path) -> None:
    with opened(tmp_path / "read_model.db") as read_model:
        carry(read_model, [], PROJECTIONS)
    with snapshot(tmp_path / "read_model.db") as now:
        assert now.positions() == dict.fromkeys(VERSIONS, 0)


def test_events_that_concern_no_projection_still_move_every_checkpoint(tmp_path: Path) -> None:
    history = f.recorded([f.topic_created(0), f.joined(1, "ann", topic_id="t"), f.topics_dismissed(2)])
    with opened(tmp_path / "read_model.db") as read_model:
        carry(read_model, history, PROJECTIONS)
    with snapshot(tmp_path / "read_model.db") as now:
        assert now.positions() == dict.fromkeys(VERSIONS, 3)
        assert now.groups(GroupFilter(), "", 10) == []
        assert now.group(f.GROUP) is None
        assert not now.knows_user("ann")


def test_a_dismissal_and_a_late_creation_in_later_batches_move_those_already_in_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    story = f.recorded(
        [f.created(0, "ann", "bob"), f.dismissed(4), f.joined(6, "cyd"), f.created(5), f.dismissed(9), f.created(10)]
    )
    rosters = []
    with opened(path) as read_model:
        for recorded in story:
            carry(read_model, [recorded], PROJECTIONS)
            with snapshot(path) as now:
                rosters.append([member.user_id for member in now.members(f.GROUP, "", 10)])
            assert_shows(path, story[: recorded.position])
    assert rosters == [["ann", "bob"], [], [], ["cyd"], [], []]


# --- a projection that fails -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_what_one_projection_cannot_apply_waits_while_all_else_moves_on_and_is_right_after_its_retry(
    data: st.DataObject,
) -> None:
    history = data.draw(any_history.filter(bool))
    broken = data.draw(st.sets(st.sampled_from([recorded.position for recorded in history]), min_size=1))
    victim = data.draw(st.sampled_from(PROJECTIONS))
    crippled = [Failing(one, broken) if one is victim else one for one in PROJECTIONS]
    with scratch() as path:
        for batch in data.draw(batches(history)):
            with opened(path) as read_model:
                carry(read_model, batch, crippled)
        with opened(path) as read_model:
            assert notes(read_model) == [
                SetAside(victim.name, position, f"ValueError: cannot fold {position}", NOW)
                for position in sorted(broken)
            ]
            assert_as_if_never_happened(path, victim, [one for one in history if one.position not in broken])
            folded_again(read_model, [victim], history)
            assert notes(read_model) == []
        assert_shows(path, history)
        with snapshot(path) as now:
            assert now.positions() == dict.fromkeys(VERSIONS, len(history))


def assert_as_if_never_happened(path: Path, victim: Projection, rest: Sequence[Recorded]) -> None:
    """Compare the victim's tables with those of a read model that never met the broken events."""
    with scratch() as other:
        with opened(other) as read_model:
            carry(read_model, rest, PROJECTIONS)
        assert [dump(path)[table.name] for table in OWNED[victim.name]] == [
            dump(other)[table.name] for table in OWNED[victim.name]
        ]


def test_an_event_that_cannot_be_decoded_is_set_aside_by_every_projection_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    first, third = f.recorded([f.created(0, "ann")])[0], f.recorded([f.joined(2, "bob")], after=2)[0]
    undecodable = UndecodableEvent(
        group_id=f.GROUP, occurred_at=0, recorded_at=0, stored_type="MembersMerged", reason="no such event here"
    )
    with opened(path) as read_model:
        carry(read_model, [first, Recorded(2, undecodable), third], PROJECTIONS)
        assert sorted(notes(read_model)) == [
            SetAside(name, 2, "CannotApply: no such event here", NOW) for name in sorted(VERSIONS)
        ]
        with snapshot(path) as now:
            assert now.notes() == notes(read_model)
            assert now.positions() == dict.fromkeys(VERSIONS, 3)
        assert_shows(path, [first, third])
        readable = f.recorded([f.left(1, "ann")], after=1)[0]
        folded_again(read_model, PROJECTIONS, [first, readable, third])
        assert notes(read_model) == []
        assert_shows(path, [first, readable, third])


def test_a_group_folded_again_in_vain_is_as_before_and_keeps_the_note(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    failing = Failing(PROJECTIONS[0], 2)
    with opened(path) as read_model:
        carry(read_model, history, [failing, *PROJECTIONS[1:]])
        before = dump(path)
        folded_again(read_model, [failing], history)
        assert dump(path) == before


def test_a_value_that_the_database_refuses_is_the_events_fault_and_not_the_databases(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    too_late = Recorded(2, MembersJoined(group_id=f.GROUP, occurred_at=2**70, recorded_at=0, members=("bob",)))
    surrogate = Recorded(3, GroupCreated(group_id=f.GROUP, occurred_at=1, recorded_at=0, members=("\ud800",)))
    fine = f.recorded([f.created(0, "ann")])[0]
    with opened(path) as read_model:
        carry(read_model, [fine, too_late, surrogate], PROJECTIONS)
        assert {note.position for note in notes(read_model) if note.projection == "membership"} == {2, 3}
        with snapshot(path) as now:
            assert [member.user_id for member in now.members(f.GROUP, "", 10)] == ["ann"]
    assert_counts_are_the_rows(path)


STATEMENTS = ["SAVEPOINT", "SELECT", "INSERT OR REPLACE INTO members", "UPDATE checkpoints", "RELEASE", "COMMIT"]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_fault_of_the_database_at_any_statement_is_never_blamed_on_an_event(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "read_model.db"
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(path) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        before = dump(path)
        with failing_disk(read_model, statement), pytest.raises(ReadModelUnavailable):
            carry(read_model, history[1:], PROJECTIONS)
        assert dump(path) == before
        carry(read_model, history[1:], PROJECTIONS)
    assert_shows(path, history)


@contextmanager
def failing_disk(read_model: SQLiteReadModel, statement: str) -> Iterator[None]:
    """Let every statement that begins so fail as it does when the disk has an error."""
    real = read_model._file.connection()
    read_model._file._connection = cast("sqlite3.Connection", FailingDisk(real, statement))
    try:
        yield
    finally:
        read_model._file._connection = real


class FailingDisk:
    """A connection on which one kind of statement meets a disk error."""

    def __init__(self, real: sqlite3.Connection, statement: str) -> None:
        self._real = real
        self._statement = statement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, statement: str, *arguments: Any) -> Any:
        self._check(statement)
        return self._real.execute(statement, *arguments)

    def executemany(self, statement: str, *arguments: Any) -> Any:
        self._check(statement)
        return self._real.executemany(statement, *arguments)

    def _check(self, statement: str) -> None:
        if statement.startswith(self._statement):
            raise sqlite3.OperationalError("disk I/O error")


def test_a_full_disk_leaves_everything_as_before_and_the_work_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    history = f.recorded([f.created(0, "ann"), f.joined(1, *(f"{number:0500d}" for number in range(500)))])
    with opened(path) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        before = dump(path)
        (pages,) = read_model._file.connection().execute("PRAGMA page_count").fetchone()
        read_model._file.connection().execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(ReadModelUnavailable, match="full"):
            carry(read_model, history, PROJECTIONS)
        assert dump(path) == before
        read_model._file.connection().execute("PRAGMA max_page_count=1000000")
        carry(read_model, history, PROJECTIONS)
        assert notes(read_model) == []
    assert_shows(path, history)


# --- rows and checkpoint, together or not at all ---------------------------------------------------------------------


class Stop(BaseException):
    """What neither an event nor a database raises."""


def break_off(work: Work, history: Sequence[Recorded], error: type[BaseException]) -> None:
    with work.advance("membership", through=history[-1].position) as tables:
        MembershipProjection().apply(tables, stretches(history))
        raise error


def break_off_after(read_model: SQLiteReadModel, history: Sequence[Recorded]) -> None:
    with read_model.transaction() as work:
        with work.advance("membership", through=history[-1].position) as tables:
            MembershipProjection().apply(tables, stretches(history))
        raise Stop


@pytest.mark.parametrize("error", [KeyError, Stop])
def test_an_exception_while_the_tables_are_out_leaves_rows_and_checkpoint_as_before(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "read_model.db"
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(path) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        before = dump(path)
        with read_model.transaction() as work:
            with pytest.raises(error):
                break_off(work, history[1:], error)
            assert work.checkpoints()["membership"].position == 1
        assert dump(path) == before
        with pytest.raises(Stop):
            break_off_after(read_model, history[1:])
        assert dump(path) == before
        carry(read_model, history, PROJECTIONS)
    assert_shows(path, history)


def test_one_projection_rolls_back_alone_and_the_others_of_the_transaction_commit(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    history = f.recorded([f.created(0, "ann")])
    with opened(path) as read_model, read_model.transaction() as work:
        with work.advance("profile", through=1) as tables:
            ProfileProjection().apply(tables, stretches(history))
        with pytest.raises(KeyError):
            break_off(work, history, KeyError)
    with snapshot(path) as now:
        assert now.positions() == {"membership": 0, "profile": 1, "fullness": 0, "timeline": 0}
        assert now.members(f.GROUP, "", 10) == []
        assert now.group(f.GROUP) is not None


def test_a_checkpoint_never_moves_back(tmp_path: Path) -> None:
    with opened(tmp_path / "read_model.db") as read_model, read_model.transaction() as work:
        for through in (5, 3):
            with work.advance("profile", through=through):
                pass
        assert work.checkpoints()["profile"].position == 5


def test_a_reader_sees_all_of_a_transaction_or_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    history = f.recorded([f.created(0, "ann"), f.joined(1, "bob")])
    with opened(path) as read_model:
        carry(read_model, history[:1], PROJECTIONS)
        with snapshot(path) as earlier:
            assert earlier.positions() == dict.fromkeys(VERSIONS, 1)
            with read_model.transaction() as work:
                project(work, PROJECTIONS[0], history, now_ms=NOW)
                with snapshot(path) as meanwhile:
                    assert shown.stored(meanwhile) == expected(history[:1])
            assert shown.stored(earlier) == expected(history[:1])
        with snapshot(path) as later:
            assert later.positions() == {"membership": 2, "profile": 1, "fullness": 1, "timeline": 1}


# --- versions --------------------------------------------------------------------------------------------------------


def test_rows_of_another_version_are_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    create(str(path), VERSIONS | {"membership": 2})
    history = f.recorded([f.created(0, "ann", name="n"), f.filled(1), f.joined(2, "bob")])
    with opened(path) as read_model:
        carry(read_model, history, PROJECTIONS)
    with snapshot(path) as now:
        assert now.positions() == {"membership": 0, "profile": 3, "fullness": 3, "timeline": 3}
        assert now.members(f.GROUP, "", 10) == []


def test_a_file_of_another_schema_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    with opened(path) as read_model:
        carry(read_model, f.recorded([f.created(0, "ann")]), PROJECTIONS)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=999")
    with opened(path) as read_model, pytest.raises(NoReadModel, match="schema of another version"):
        notes(read_model)
    with pytest.raises(NoReadModel), snapshot(path):
        pass


def test_where_there_is_no_file_none_is_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(NoReadModel, match="there is no read model yet"), snapshot(tmp_path / "read_model.db"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_said_to_be_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ReadModelUnavailable, match="SQLite"), snapshot(path):
        pass


# --- questions -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
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
    ends = [f.filled(50, group_id=one.event.group_id) for one in history[::2]]
    ends += [f.dismissed(60, group_id=one.event.group_id) for one in history[::3]]
    history += f.recorded(ends, after=len(history))
    condition = GroupFilter(
        type=data.draw(st.sampled_from([None, "Public", "Private"])),
        status=data.draw(st.sampled_from([None, "active", "dismissed"])),
        is_full=data.draw(st.sampled_from([None, True, False])),
        prefix=data.draw(st.sampled_from([None, *NAMES])),
    )
    listed = [group_id for group_id, (group, _) in expected(history).items() if matches(group, condition)]
    limit = data.draw(st.integers(1, 4))
    with scratch() as path:
        with opened(path) as read_model:
            carry(read_model, history, PROJECTIONS)
        with snapshot(path) as now:
            found: list[str] = []
            while page := now.groups(condition, found[-1] if found else "", limit):
                assert len(page) <= limit
                found += [state.group_id for state in page]
    assert found == listed


NAMES = ("a", "A", "ab", "a%", "a_", "\U0010ffff", "\ud7ff", "é", "\u0000")
some_groups = st.lists(
    st.tuples(
        st.text(st.sampled_from("aAb%_\U0010ffff\ud7ff\u0000é"), min_size=1, max_size=3),
        st.none() | st.text(st.sampled_from("aAb%_\U0010ffff\ud7ff\u0000é"), max_size=3),
        st.sampled_from([None, "Public", "Private"]),
    ),
    max_size=8,
    unique_by=lambda one: one[0],
)


def matches(group: dict[str, Any], condition: GroupFilter) -> bool:
    prefix = condition.prefix or ""
    return (
        condition.type in (None, group["type"])
        and condition.status in (None, group["status"])
        and condition.is_full in (None, group["is_full"])
        and (group["group_id"].startswith(prefix) or (group["name"] or "").startswith(prefix))
    )


def test_members_and_a_users_groups_come_in_pages_without_gap_or_repeat(tmp_path: Path) -> None:
    path = tmp_path / "read_model.db"
    users = [f"u{number:02d}" for number in range(11)]
    history = f.recorded(
        [f.joined(0, *users), *(f.joined(1, "u05", group_id=f"g{number}") for number in range(5)), f.left(2, "u03")]
    )
    with opened(path) as read_model:
        carry(read_model, history, PROJECTIONS)
    with snapshot(path) as now:
        seen: list[str] = []
        while page := now.members(f.GROUP, seen[-1] if seen else "", 3):
            seen += [member.user_id for member in page]
        assert seen == [user for user in users if user != "u03"]
        groups: list[str] = []
        while page := now.groups_of("u05", groups[-1] if groups else "", 2):
            groups += [membership.group_id for membership in page]
        assert groups == [f.GROUP, "g0", "g1", "g2", "g3", "g4"]
        assert now.knows_user("u03")
        assert not now.knows_user("u99")


@settings(deadline=None, max_examples=50)
@given(any_history.filter(bool))
def test_a_group_folded_again_has_the_rows_it_had(history: list[Recorded]) -> None:
    with scratch() as path, opened(path) as read_model:
        carry(read_model, history, PROJECTIONS)
        before = dump(path)
        group_id = history[-1].event.group_id
        stream = [one for one in history if one.event.group_id == group_id]
        with read_model.transaction() as work:
            for projection in PROJECTIONS:
                refold(work, projection, group_id, [stream[:3], stream[3:]], now_ms=NOW)
        assert dump(path) == before
