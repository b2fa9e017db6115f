"""The endpoints of `/v1`: each answers checked parameters from one session of the read model, and from the history."""

from collections.abc import Sequence
from operator import attrgetter, itemgetter
from typing import Final

import msgspec

from projector.domain.events import Recorded
from projector.domain.limits import utf8_length
from projector.event_store import EventStore
from projector.event_store.reading import group_history
from projector.event_store.renamed_events import RenamedEvents
from projector.http import answers
from projector.http.parameters import Parameters
from projector.http.problems import Problem
from projector.read_model.group_filter import GroupFilter
from projector.read_model.groups import Groups
from projector.read_model.pages import take_page
from projector.read_model.query_session import QuerySession
from projector.read_model.shapes import Group, optional_time
from projector.time_travel.cut import Cut
from projector.time_travel.diff import MemberChange, changed_members
from projector.time_travel.past_group import PastGroup, membership_size
from projector.time_travel.past_groups import PastGroups
from projector.time_travel.span import Span, events_between

_group_id: Final = attrgetter("group_id")
_version: Final = attrgetter("version")
_position: Final = attrgetter("position")
_changed_user: Final = itemgetter(0)
_moment: Final = itemgetter(0)


class QueryEndpoints:
    """The queries of the routes. They raise Problem, StoreUnavailable and ReadModelUnavailable."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    def groups(self, session: QuerySession, parameters: Parameters) -> answers.Groups:
        condition = GroupFilter(
            type=parameters.type, status=parameters.status, is_full=parameters.is_full, prefix=parameters.q
        )
        page = session.groups(condition, parameters.cursor or "", parameters.limit)
        self._show_verified(page)
        return answers.Groups(page, parameters.following(page, _group_id))

    def group(self, session: QuerySession, parameters: Parameters) -> Group:
        group = _group(self._groups_at(session, parameters), parameters)
        if parameters.is_now:
            self._show_verified([group])
        return group

    def members(self, session: QuerySession, parameters: Parameters) -> answers.Members:
        groups = self._groups_at(session, parameters)
        if (roster := groups.roster(parameters.group_id, parameters.cursor or "", parameters.limit)) is None:
            raise _unknown_group(parameters.is_now)
        return answers.members(parameters.group_id, roster, parameters.following(roster.members))

    def member(self, session: QuerySession, parameters: Parameters) -> msgspec.Raw:
        groups = self._groups_at(session, parameters)
        if (member := groups.member(parameters.group_id, parameters.user_id)) is None:
            _group(groups, parameters)
            if parameters.is_now:
                raise Problem(404, "This user is not a member of this group.")
            raise Problem(404, "This user was not a member of this group at the requested moment.")
        return member

    def user_groups(self, session: QuerySession, parameters: Parameters) -> answers.UserGroups:
        groups = self._groups_at(session, parameters)
        page = groups.groups_of(parameters.user_id, parameters.cursor or "", parameters.limit)
        if not page and not groups.knows_user(parameters.user_id):
            raise Problem(404, f"No events for this user{_until(parameters.is_now)}.")
        following = parameters.following(page, _group_id)
        return answers.UserGroups(parameters.user_id, page, following)

    def member_history(self, session: QuerySession, parameters: Parameters) -> answers.History:
        group_id, user_id, limit = parameters.group_id, parameters.user_id, parameters.limit
        if not session.stored_states.knows_member(group_id, user_id):
            raise Problem(404, "No events for this user in this group.")
        history_events = self._events(session)
        changes = session.stored_states.changes(group_id, user_id, parameters.cursor, limit + 1)
        events = ((moment, change, history_events.read(moment[1] - 1, 1)[0]) for moment, change in changes)
        page = take_page(events, limit, lambda item: _event_size(item[2]))
        following = parameters.following(page, _moment)
        return answers.History([answers.history_event(change, recorded) for _, change, recorded in page], following)

    def diff(self, session: QuerySession, parameters: Parameters) -> answers.Diff:
        events, states = self._events(session), session.stored_states
        earlier, later = (PastGroup(events, states, parameters.group_id, cut) for cut in _span(session, parameters))
        if (state := later.state()) is None:
            raise _unknown_group(parameters.to is None)
        page = take_page(changed_members(earlier, later, parameters.cursor or ""), parameters.limit, _change_size)
        return answers.diff(earlier.state(), state, page, parameters.following(page, _changed_user))

    def group_events(self, session: QuerySession, parameters: Parameters) -> answers.Events:
        group_id, after, reader = parameters.group_id, parameters.cursor or 0, self._events(session)
        if (parameters.from_, parameters.to) == (None, None):
            events = group_history(reader, group_id, after, parameters.limit + 1)
        else:
            events = events_between(reader, session.stored_states, group_id, _span(session, parameters), after)
        page = take_page(events, parameters.limit, _event_size)
        if not page and not reader.read_group(group_id, 0, 1):
            raise Problem(404, "No events for this group.")
        following = parameters.following(page, _version)
        return answers.Events([answers.event(recorded) for recorded in page], following)

    def _show_verified(self, groups: Sequence[Group]) -> None:
        verified_at = self._store.reconciliations.verified_at([group.group_id for group in groups])
        for group in groups:
            group.verified_at = optional_time(verified_at.get(group.group_id))

    def _groups_at(self, session: QuerySession, parameters: Parameters) -> Groups:
        """Return the groups as they are, or as they were at the requested moment."""
        if parameters.is_now:
            return session
        position = session.reached() if parameters.position is None else parameters.position
        return PastGroups(self._events(session), session.stored_states, Cut(position, parameters.at))

    def _events(self, session: QuerySession) -> RenamedEvents:
        return RenamedEvents(self._store, session.forgotten_through)


def _span(session: QuerySession, parameters: Parameters) -> Span:
    """Return the moments of `from` and `to`: by default, before the first event and now."""
    reached = session.reached()
    return Span(Cut(reached, -1 if parameters.from_ is None else parameters.from_), Cut(reached, parameters.to))


def _group(groups: Groups, parameters: Parameters) -> Group:
    if (group := groups.group(parameters.group_id)) is None:
        raise _unknown_group(parameters.is_now)
    return group


def _unknown_group(is_now: bool) -> Problem:
    return Problem(404, f"No events for this group{_until(is_now)}.")


def _until(is_now: bool) -> str:
    return "" if is_now else " up to the requested moment"


def _event_size(recorded: Recorded) -> int:
    return utf8_length(recorded.event.callback)


def _change_size(change: MemberChange) -> int:
    _, before, after = change
    return sum(membership_size(membership) for membership in (before, after) if membership)
