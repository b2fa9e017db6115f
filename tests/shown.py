"""What the folds and the read model know, put as `/v1` shows it, so that it can be compared with the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from projector.domain import fullness, lives, membership, profile
from projector.domain.events import concerns_group
from projector.domain.membership import Standing
from projector.read_model.groups import GroupState, Membership
from projector.read_model.rows import Roster
from tests.oracle import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projector.domain.events import Recorded
    from projector.read_model.query_session import QuerySession

Shown = dict[str, Any]


def group(state: GroupState) -> Shown:
    known, now, full = state.profile, state.roster.lives, state.fullness
    count = state.roster.member_count
    complete = now.roster_complete
    return {
        "group_id": state.group_id,
        "type": known.type.value,
        "status": known.status,
        "name": known.name.value,
        "introduction": known.introduction.value,
        "notification": known.notification.value,
        "face_url": known.face_url.value,
        "owner": membership.present_owner(known.owner, state.owner_exited),
        "custom_fields": profile.current(known.custom_fields),
        "attributes": profile.current(known.attributes),
        "member_count": count,
        "member_limit": full.member_limit(count, roster_complete=complete),
        "roster_complete": complete,
        "is_full": full.is_full,
        "full_at": rfc3339(full.full_at),
        "created_at": rfc3339(now.created_at),
        "dismissed_at": rfc3339(now.dismissed_at),
        "updated_at": rfc3339(known.updated_at),
        "position": known.position,
    }


def member(known: Membership) -> Shown:
    return {
        "user_id": known.user_id,
        "role": membership.role(known.user_id, known.member, known.owner),
        "name_card": membership.name_card(known.member),
        "joined_at": rfc3339(known.member.joined[0]),
        "join_type": known.member.join_type,
        "operator": known.member.operator,
    }


def folded(history: Iterable[Recorded]) -> dict[str, tuple[Shown, dict[str, Shown]]]:
    """Fold a history, in the order given, and return every known group with its members by user id."""
    rosters: dict[str, lives.Lives] = {}
    profiles: dict[str, profile.Profile] = {}
    filled: dict[str, fullness.Fullness] = {}
    people: dict[str, dict[str, membership.Member]] = {}
    for recorded in history:
        if not concerns_group(recorded.event):
            continue
        group_id = recorded.event.group_id
        rosters[group_id] = lives.evolve(rosters.get(group_id, lives.Lives()), recorded)
        profiles[group_id] = profile.evolve(profiles.get(group_id, profile.Profile()), recorded)
        filled[group_id] = fullness.evolve(filled.get(group_id, fullness.Fullness()), recorded)
        known = people.setdefault(group_id, {})
        for user_id in membership.users(recorded.event):
            known[user_id] = membership.evolve(known.get(user_id, membership.Member()), recorded)
    everything = {}
    for group_id in sorted(profiles):
        owner = profiles[group_id].owner
        standing = {
            user_id: Membership(group_id, user_id, membership_row, owner)
            for user_id, membership_row in sorted(people[group_id].items())
            if membership.standing(membership_row, rosters[group_id]) is Standing.MEMBER
        }
        owner_exited = people[group_id].get(owner.value or "", membership.Member()).exited
        state = GroupState(
            group_id, profiles[group_id], Roster(rosters[group_id], len(standing)), filled[group_id], owner_exited
        )
        everything[group_id] = (
            group(state),
            {user_id: member(membership_row) for user_id, membership_row in standing.items()},
        )
    return everything


def stored(snapshot: QuerySession) -> dict[str, tuple[Shown, dict[str, Shown]]]:
    """Return every group of a read model with its members by user id."""
    from projector.read_model.group_filter import GroupFilter

    return {
        state.group_id: (
            group(state),
            {
                membership_row.user_id: member(membership_row)
                for membership_row in snapshot.members(state.group_id, "", 1000)
            },
        )
        for state in snapshot.groups(GroupFilter(), "", 1000)
    }
