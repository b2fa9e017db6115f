"""The types of groups, and their rules."""

from typing import Final, NamedTuple


class Kind(NamedTuple):
    """A type of group, with the vendor's name. `weight` is how common it is relative to the others."""

    type: str
    weight: int
    join_types: tuple[str, ...]
    has_limit: bool = True
    has_admins: bool = True
    has_topics: bool = False
    owner_may_quit: bool = False
    owner_may_change: bool = True
    members_are_kicked: bool = True
    creation_lists_members: bool = True
    dismissal_lists_members: bool = True


KINDS: Final = (
    Kind("Public", 35, ("Apply", "Apply", "Invited")),
    Kind("Private", 25, ("Invited",), has_admins=False, owner_may_quit=True),
    Kind("ChatRoom", 15, ("Apply",)),
    Kind(
        "AVChatRoom",
        15,
        ("Apply",),
        has_limit=False,
        owner_may_change=False,
        members_are_kicked=False,
        creation_lists_members=False,
        dismissal_lists_members=False,
    ),
    Kind("Community", 10, ("Apply", "Invited"), has_topics=True, dismissal_lists_members=False),
)
