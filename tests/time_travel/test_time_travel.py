"""Time travel: for any history and any cut, the state is the oracle's for exactly the events of the cut."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.bootstrap import PROJECTIONS, open_events, open_queries
from projector.event_store import Candidate
from projector.projection import groups as groups_projection
from projector.projection import project
from projector.read_model import blocks
from projector.time_travel.cut import Cut
from projector.time_travel.diff import changed_members
from projector.time_travel.past_group import PastGroup
from projector.time_travel.past_groups import PastGroups
from projector.time_travel.span import Span, events_between
from tests import oracle, shown
from tests.domain import facts as f
from tests.domain.strategies import EPOCH, GROUPS, USERS, any_history
from tests.kinds import empty_database, on_postgresql
from tests.kinds import settings as settings_of
from tests.processes.databases import begin_read_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from projector.domain.events import Recorded
    from projector.event_store import EventStore
    from projector.read_model.query_session import QuerySession

pytestmark = pytest.mark.usefixtures("kind")

UNKNOWN_USER = "ghost"


class Opened(NamedTuple):
    store: EventStore
    session: QuerySession
    history: Sequence[Recorded]

    def groups(self, cut: Cut) -> PastGroups:
        return PastGroups(self.store, self.session.stored_states, cut)


def examples(count: int) -> settings:
    """Draw this many examples; fewer if each needs an empty database on a server."""
    return settings(deadline=None, max_examples=count // 5 if on_postgresql() else count)


@contextmanager
def projected(history: Sequence[Recorded], batches: Sequence[int] = ()) -> Iterator[Opened]:
    """A store and a read model with this history, projected in batches that end at these positions."""
    with TemporaryDirectory() as folder:
        database = empty_database(Path(folder))
        store = open_events(settings_of(database))
        with (
            closing(store),
            closing(begin_read_model(database)) as read_model,
            closing(open_queries(settings_of(database))) as queries,
        ):
            if history:
                store.append([Candidate(recorded.event, None) for recorded in history])
            start = 0
            for end in [*sorted(batches), len(history)]:
                with read_model.transaction() as work:
                    project(work, PROJECTIONS, history[start:end], now_ms=0)
                    assert work.set_aside_events() == []
                start = end
            with queries.session() as session:
                yield Opened(store, session, history)


@pytest.fixture(params=[(1, 16), (2, 1), (3, 16), (5, 2)], ids=str)
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few events, so that short histories have several; the users of rosters stored more or less often."""
    size, share = request.param
    monkeypatch.setattr(blocks, "SIZE", size)
    monkeypatch.setattr(groups_projection, "_ROSTER_SHARE", share)


def cuts(history: Sequence[Recorded]) -> st.SearchStrategy[Cut]:
    """Any cut by position or time: before, at, between or after the events."""
    head = len(history)
    times = sorted({recorded.event.occurred_at for recorded in history})
    moments = st.sampled_from([EPOCH - 1, *times, EPOCH + 10**9]) | st.integers(EPOCH - 2, EPOCH + 20)
    return st.builds(Cut, st.integers(0, head)) | st.builds(Cut, st.just(head), moments)


def included(history: Sequence[Recorded], cut: Cut) -> list[Recorded]:
    """The events that a cut includes, by checking each."""
    return [
        recorded
        for recorded in history
        if recorded.position <= cut.position and (cut.at is None or recorded.event.occurred_at <= cut.at)
    ]


def members_in_pages(groups: PastGroups, group_id: str, limit: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    while page := shown.members(groups, group_id, max(members, default=""), limit):
        assert len(page) <= limit
        assert sorted({member["user_id"] for member in page}) == [member["user_id"] for member in page]
        members |= {member["user_id"]: member for member in page}
    return members


def assert_as_the_oracle_says(opened: Opened, cut: Cut, limit: int) -> None:
    known = oracle.facts(included(opened.history, cut))
    groups = opened.groups(cut)
    for group_id in GROUPS:
        expected = oracle.group_of(known, group_id)
        state = groups.group(group_id)
        assert (state and shown.as_sent(state)) == expected
        members = oracle.members(known, group_id)
        assert members_in_pages(groups, group_id, limit) == members
        for user_id in (*USERS, UNKNOWN_USER):
            member = opened.groups(cut).member(group_id, user_id)
            assert (member and shown.as_sent(member)) == members.get(user_id)
    for user_id in (*USERS, UNKNOWN_USER):
        memberships = opened.groups(cut).groups_of(user_id, "", 10)
        assert opened.groups(cut).knows_user(user_id) == oracle.knows_user(known, user_id)
        expected_ids = [group["group_id"] for group in oracle.groups_of(known, user_id)]
        assert [membership.group_id for membership in memberships] == expected_ids


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_at_any_moment_every_answer_is_the_oracles_of_exactly_the_events_that_count() -> None:
    @examples(120)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        history = data.draw(any_history)
        with projected(history, data.draw(st.lists(st.integers(0, len(history)), max_size=3))) as opened:
            for _ in range(4):
                assert_as_the_oracle_says(opened, data.draw(cuts(history)), data.draw(st.integers(1, 4)))

    check()


@settings(deadline=None, max_examples=30)
@given(any_history)
def test_at_the_head_and_after_all_times_it_is_as_it_is_now(history: list[Recorded]) -> None:
    with projected(history) as opened:
        for cut in (Cut(len(history)), Cut(len(history), EPOCH + 10**9)):
            assert_as_the_oracle_says(opened, cut, 2)
        known = oracle.facts(history)
        for user_id in (*USERS, UNKNOWN_USER):
            assert opened.session.knows_user(user_id) == oracle.knows_user(known, user_id)


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_between_any_two_moments_the_difference_is_that_of_the_oracles_answers() -> None:
    @examples(60)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        history = data.draw(any_history)
        earlier, later = sorted(data.draw(st.lists(st.integers(EPOCH - 2, EPOCH + 20), min_size=2, max_size=2)))
        with projected(history) as opened:
            head = len(history)
            for group_id in GROUPS:
                before, after = (
                    oracle.members(oracle.facts(included(history, Cut(head, at))), group_id) for at in (earlier, later)
                )
                then, now = (
                    PastGroup(opened.store, opened.session.stored_states, group_id, Cut(head, at))
                    for at in (earlier, later)
                )
                changed = {user: (old, new) for user, old, new in changed_members(then, now, "")}
                assert [*changed] == sorted(changed)
                assert {
                    user: tuple(member and shown.as_sent(member.shown()) for member in pair)
                    for user, pair in changed.items()
                } == {
                    user: (before.get(user), after.get(user))
                    for user in {*before, *after}
                    if before.get(user) != after.get(user)
                }
                between = events_between(
                    opened.store, opened.session.stored_states, group_id, Span(Cut(head, earlier), Cut(head, later)), 0
                )
                assert [*between] == [
                    recorded
                    for recorded in history
                    if recorded.event.group_id == group_id and earlier < recorded.event.occurred_at <= later
                ]

    check()


@settings(deadline=None, max_examples=60)
@given(any_history)
def test_a_users_history_in_a_group_is_every_join_and_exit_and_the_dismissals_newest_first(
    history: list[Recorded],
) -> None:
    with projected(history) as opened:
        for group_id in GROUPS:
            for user_id in USERS:
                story = sorted(oracle.timeline(oracle.facts(history), group_id), key=_time_and_position, reverse=True)
                expected = [
                    (fact["position"], change) for fact in story if (change := change_in(fact, user_id)) is not None
                ]
                changes = opened.session.stored_states.changes(group_id, user_id, None, 100)
                assert [(position, change) for (_, position), change in changes] == expected
                if changes:
                    rest = opened.session.stored_states.changes(group_id, user_id, changes[0][0], 100)
                    assert rest == changes[1:]


def _time_and_position(fact: dict[str, Any]) -> tuple[int, int]:
    return fact["occurred_at"], fact["position"]


def change_in(fact: dict[str, Any], user_id: str) -> str | None:
    if fact["what"] in ("GroupDismissed", "GroupObservedAbsent"):
        return "dismissed"
    if user_id in oracle.joiners(fact):
        return "joined"
    of_some = {"MembersLeft": "left", "MembersObserved": "observed_member", "MembersObservedAbsent": "observed_absent"}
    return of_some.get(fact["what"]) if user_id in fact.get("members", ()) else None


def test_a_stream_of_many_blocks_with_late_events_in_each_is_right_at_every_boundary() -> None:
    events = [f.created(0, "u0", owner="u0", name="n0")]
    for number in range(1, 3 * blocks.SIZE):
        late = 40_000 if number % 97 == 0 else 0
        user = f"u{number % 50}"
        events.append((f.left if number % 3 == 0 else f.joined)(number * 10 - late, user))
        if number % 200 == 0:
            events.append(f.profile(number * 10, name=f"n{number}"))
    history = f.recorded(events)
    with projected(history, [300, 512, 513, 1100]) as opened:
        for version in (1, 511, 512, 513, 1023, 1024, 1025, len(history)):
            for cut in (Cut(version), Cut(len(history), EPOCH + version * 10)):
                known = oracle.facts(included(history, cut))
                groups = opened.groups(cut)
                state = groups.group(f.GROUP)
                assert state is not None
                assert shown.as_sent(state) == oracle.group_of(known, f.GROUP)
                assert members_in_pages(groups, f.GROUP, 7) == oracle.members(known, f.GROUP)


class CountingStore:
    """A store that counts the events read from it."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.read = 0

    def read_group(self, group_id: str, after: int, limit: int) -> Sequence[Recorded]:
        events = self._store.read_group(group_id, after, limit)
        self.read += len(events)
        return events


@pytest.mark.slow
def test_whatever_the_length_of_a_stream_few_events_are_read_for_any_moment_of_it() -> None:
    count = 12 * blocks.SIZE + 100
    # Each event arrives up to 20 events late, as callbacks do.
    events = [f.joined(10 * number - number * 7919 % 200, f"u{number % 400}") for number in range(1, count)]
    history = f.recorded(events)
    with projected(history, range(500, count, 500)) as opened:
        for version in range(1, len(history), 301):
            for cut in (Cut(version), Cut(len(history), EPOCH + version * 10)):
                counting = CountingStore(opened.store)
                group = PastGroup(counting, opened.session.stored_states, f.GROUP, cut)
                assert group.state() is not None
                group.members("", 100)
                assert counting.read <= 3 * blocks.SIZE
