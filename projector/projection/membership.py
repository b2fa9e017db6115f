"""The membership projection: rosters, members, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.domain import lives, membership
from projector.domain.events import speaks_of_group
from projector.domain.membership import Member, Standing
from projector.read_model import MemberRow, Roster

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from projector.domain.events import Recorded
    from projector.domain.lives import Lives
    from projector.read_model import Tables


class MembershipProjection:
    """See `projector.domain.membership` for the rules."""

    name = "membership"
    version = 1

    def apply(self, tables: Tables, batch: Sequence[Recorded]) -> None:
        """Fold the batch into `rosters` and `members`."""
        events = [recorded for recorded in batch if speaks_of_group(recorded.event)]
        concerned = [
            (recorded, (recorded.event.group_id, user_id))
            for recorded in events
            for user_id in membership.users(recorded.event)
        ]
        known = tables.members(dict.fromkeys(key for _, key in concerned))
        evidence = {key: row.member for key, row in known.items()}
        for recorded, key in concerned:
            evidence[key] = membership.evolve(evidence.get(key, Member()), recorded)

        rosters = tables.rosters(dict.fromkeys(recorded.event.group_id for recorded in events))
        group_lives = _evolved({group_id: roster.lives for group_id, roster in rosters.items()}, events)
        for group_id, now in group_lives.items():
            if now != rosters.get(group_id, Roster()).lives:
                for row in tables.present(group_id):
                    known[group_id, row.user_id] = row
                    evidence.setdefault((group_id, row.user_id), row.member)

        rows = [
            MemberRow(group_id, user_id, member, membership.standing(member, group_lives[group_id]))
            for (group_id, user_id), member in evidence.items()
        ]
        tables.save_members(row for row in rows if known.get((row.group_id, row.user_id)) != row)
        joined = _members_by_group(rows)
        left = _members_by_group(known.values())
        changed = {
            group_id: Roster(
                now, rosters.get(group_id, Roster()).member_count + joined.get(group_id, 0) - left.get(group_id, 0)
            )
            for group_id, now in group_lives.items()
        }
        tables.save_rosters(
            {group_id: roster for group_id, roster in changed.items() if rosters.get(group_id) != roster}
        )


def _evolved(known: Mapping[str, Lives], events: Sequence[Recorded]) -> dict[str, Lives]:
    evolved = dict(known)
    for recorded in events:
        group_id = recorded.event.group_id
        evolved[group_id] = lives.evolve(evolved.get(group_id, lives.Lives()), recorded)
    return evolved


def _members_by_group(rows: Iterable[MemberRow]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        if row.standing is Standing.MEMBER:
            counts[row.group_id] = counts.get(row.group_id, 0) + 1
    return counts
