"""The mirror's side of a comparison: groups as the read model shows them once it has caught up."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

from projector.domain import membership
from projector.domain.fullness import Fullness
from projector.domain.lives import Lives
from projector.domain.membership import Member
from projector.domain.profile import Profile
from projector.event_store import EventStore
from projector.projection import Projection
from projector.read_model import NoReadModel, Queries, ReadModelUnavailable
from projector.read_model.generations import Generations
from projector.read_model.group_filter import GroupFilter
from projector.read_model.query_session import QuerySession
from projector.subscription import Subscription
from projector.time_travel.cut import Cut
from projector.time_travel.past_group import PastGroup

_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.02
_PAGE: Final = 1_000


class MirrorGroup(NamedTuple):
    """The evidence about a group at the head; `members` are those who are members, by user id."""

    profile: Profile
    lives: Lives
    fullness: Fullness
    members: dict[str, Member]
    evidence_of: Callable[[str], Member]
    """Return the evidence about any user; only while the mirror is being read."""

    @property
    def owner(self) -> str | None:
        """The present owner."""
        owner = self.profile.owner
        return membership.present_owner(owner, self.evidence_of(owner.value).exited) if owner.value else None


class Mirror:
    """Reads the read model, and projects into it if no worker does. All methods raise ReadModelUnavailable.

    They raise StoreUnavailable, too. `rebuild` builds a missing read model.
    """

    def __init__(
        self,
        store: EventStore,
        generations: Generations,
        queries: Queries,
        projections: Sequence[Projection],
        rebuild: Callable[[], None],
    ) -> None:
        self._store = store
        self._generations = generations
        self._queries = queries
        self._projections = projections
        self._rebuild = rebuild

    @contextmanager
    def read(self) -> Iterator[Callable[[str], MirrorGroup | None]]:
        """Give a function that returns a group as of the present head, None if it is not known."""
        self.catch_up()
        with self._queries.session() as session:
            position = min(session.positions().values())

            def group(group_id: str) -> MirrorGroup | None:
                return self._group(session, group_id, position)

            yield group

    def catch_up(self) -> None:
        """Wait until the read model has reached the head."""
        head, deadline = self._store.head(), time.monotonic() + _TIMEOUT_S
        while self._position() < head:
            if not self._generations.has_worker():
                self._project()
            elif time.monotonic() > deadline:
                raise ReadModelUnavailable(f"the projections did not reach position {head} within {_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)

    def active_groups(self) -> Iterator[list[str]]:
        """Yield the ids of all groups that are not dismissed, in pages."""
        after = ""
        while True:
            with self._queries.session() as session:
                page = session.groups(GroupFilter(status="active"), after, _PAGE)
            yield [group.group_id for group in page]
            if page.is_last:
                return
            after = page.examined or page[-1].group_id

    def counts(self) -> tuple[int, int]:
        """Return how many groups are active, and how many memberships there are."""
        with self._queries.session() as session:
            counts = session.counts()
        return counts.active_groups, counts.members

    def announce(self) -> None:
        """Have cached responses, which show when groups were verified, made again."""
        with closing(self._generations.live()) as read_model, read_model.transaction() as work:
            work.touch()

    def _position(self) -> int:
        try:
            with self._queries.session() as session:
                return session.reached()
        except NoReadModel:
            if self._generations.has_worker():
                return 0
            self._rebuild()
            return self._position()

    def _project(self) -> None:
        with closing(self._generations.live()) as read_model:
            if read_model.try_lead():
                Subscription(self._store, read_model, self._projections).catch_up()
                read_model.step_down()

    def _group(self, session: QuerySession, group_id: str, position: int) -> MirrorGroup | None:
        group = PastGroup(self._store, session.stored_states, group_id, Cut(position))
        if not group.profile.position:
            return None
        members = {
            user_id: found.member for user_id, found in group.memberships(group.candidates("")) if found is not None
        }
        return MirrorGroup(group.profile, group.lives, group.fullness, members, group.evidence)
