"""The difference between two cuts through one group: the members that changed."""

from collections.abc import Iterator
from heapq import merge
from itertools import groupby, tee
from typing import TypeAlias

from projector.time_travel.past_group import Membership, PastGroup

MemberChange: TypeAlias = tuple[str, Membership | None, Membership | None]
"""A user, with the earlier and the later membership."""


def changed_members(earlier: PastGroup, later: PastGroup, after: str) -> Iterator[MemberChange]:
    """Yield, by user id and after `after`, the users whose membership differs, with the earlier and the later one.

    Both are cuts by time, up to the same position. Raises StoreUnavailable and ReadModelUnavailable.
    """
    for_later, for_earlier = tee(_candidates(earlier, later, after))
    pairs = zip(later.memberships(for_later), earlier.memberships(for_earlier), strict=True)
    for (user_id, now), (_, before) in pairs:
        if (before and before.shown()) != (now and now.shown()):
            yield user_id, before, now


def _candidates(earlier: PastGroup, later: PastGroup, after: str) -> Iterator[str]:
    """Yield, in order, every user whose membership can differ.

    Within one life only the mentioned users and both owners can; across lives, or if there are too many events to read,
    every member can.
    """
    mentioned = later.mentioned_since(earlier.cut) if later.lives == earlier.lives else None
    if mentioned is None:
        return (user_id for user_id, _ in groupby(merge(earlier.candidates(after), later.candidates(after))))
    owners = {group.profile.owner.value or "" for group in (earlier, later)}
    return iter(sorted(user_id for user_id in mentioned | owners if user_id > after))
