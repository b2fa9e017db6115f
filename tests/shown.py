"""What the folds and the read model know, put as `/v1` shows it, so that it can be compared with the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from projector.domain import fullness, lives, membership, profile
from projector.domain.events import concerns_group
from projector.domain.membership import Standing
from projector.read_model import shapes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projector.domain.events import Recorded
    from projector.read_model.groups import Groups
    from projector.read_model.query_session import QuerySession

Shown = dict[str, Any]


def as_sent(shape: Any) -> Any:
    """Return a shape as the client gets it."""
    return msgspec.json.decode(msgspec.json.encode(shape))


def members(groups: Groups, group_id: str, after: str = "", limit: int = 1_000) -> list[Shown]:
    """Return a page of a group's members, none if the group is not known."""
    roster = groups.roster(group_id, after, limit)
    return [msgspec.json.decode(member) for member in roster.members] if roster else []


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
            known[user_id] = membership.evolve(user_id, known.get(user_id, membership.Member()), recorded)
    everything = {}
    for group_id in sorted(profiles):
        owner = profiles[group_id].owner
        standing = {
            user_id: as_sent(shapes.member_of(user_id, evidence, owner))
            for user_id, evidence in sorted(people[group_id].items())
            if membership.standing(evidence, rosters[group_id]) is Standing.MEMBER
        }
        owner_exited = people[group_id].get(owner.value or "", membership.Member()).exited
        shown = shapes.group(group_id, profiles[group_id], len(standing), filled[group_id], owner_exited)
        everything[group_id] = as_sent(shown), standing
    return everything


def stored(snapshot: QuerySession) -> dict[str, tuple[Shown, dict[str, Shown]]]:
    """Return every group of a read model with its members by user id."""
    from projector.read_model.group_filter import GroupFilter

    return {
        group.group_id: (
            as_sent(group),
            {member["user_id"]: member for member in members(snapshot, group.group_id)},
        )
        for group in snapshot.groups(GroupFilter(), "", 1000)
    }
