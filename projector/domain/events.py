"""Events: immutable facts about groups, named in the past tense.

Each event is stored with its `TOPIC`, which must never change; a class may be moved or renamed. Events cannot form
reference cycles, so the garbage collector does not track them (`gc=False`).
"""

from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import msgspec

Account: TypeAlias = Annotated[str, "account"]
"""A user's id."""

Text: TypeAlias = Annotated[str, "text"]
"""Text that people write, which may mention users."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A fact about one group.

    `occurred_at` is the effective time and `recorded_at` the time of receipt, both in ms since 1970 UTC. `topic_id` is
    set if the callback was about a topic in the group. `callback` is the body as received.
    """

    TOPIC: ClassVar[str]

    group_id: str
    occurred_at: int
    recorded_at: int
    group_type: str | None = None
    operator: Account | None = None
    platform: str | None = None
    topic_id: str | None = None
    callback: str = "{}"


class ProfileFact(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A fact with profile fields: None means unchanged, an empty string means cleared."""

    name: Text | None = None
    introduction: Text | None = None
    notification: Text | None = None
    face_url: Text | None = None
    owner: Account | None = None
    custom_fields: dict[Text, Text] = {}


class GroupCreated(ProfileFact, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A group was created with these members, and with its owner, who may be missing from the list."""

    TOPIC = "GroupCreated"
    members: tuple[Account, ...] = ()


class MembersJoined(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Users joined."""

    TOPIC = "MembersJoined"
    members: tuple[Account, ...]
    join_type: Literal["Apply", "Invited"] | None = None


class MembersLeft(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Users left: they quit, or the operator removed them."""

    TOPIC = "MembersLeft"
    members: tuple[Account, ...]
    exit_type: str | None = None


class GroupFilled(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The group is full: it reached its member limit, or a user could not join because of it."""

    TOPIC = "GroupFilled"


class GroupProfileChanged(ProfileFact, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Profile fields changed."""

    TOPIC = "GroupProfileChanged"


class GroupDismissed(ProfileFact, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The group was dismissed; profile fields are the last ones."""

    TOPIC = "GroupDismissed"


class MemberChanged(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A member's role or name card changed; None means unchanged."""

    TOPIC = "MemberChanged"
    member: Account
    role: str | None = None
    name_card: Text | None = None


class OwnerChanged(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The group has a new owner; an empty string means no owner."""

    TOPIC = "OwnerChanged"
    owner: Account
    previous_owner: Account | None = None


class AttributesChanged(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Group attributes were replaced (`set`), merged (`modify`), emptied (`clear`) or removed by key (`delete`)."""

    TOPIC = "AttributesChanged"
    operation: Literal["set", "modify", "clear", "delete"]
    attributes: dict[Text, Text] = {}


class TopicCreated(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A topic was created in a community."""

    TOPIC = "TopicCreated"


class TopicsDismissed(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Topics of a community were dismissed."""

    TOPIC = "TopicsDismissed"
    topic_ids: tuple[str, ...] = ()


class TopicProfileChanged(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The profile of a topic changed; the vendor does not say of which topic."""

    TOPIC = "TopicProfileChanged"


TYPES: Final[dict[str, type[Event]]] = {
    event_type.TOPIC: event_type
    for event_type in (
        GroupCreated,
        MembersJoined,
        MembersLeft,
        GroupFilled,
        GroupProfileChanged,
        GroupDismissed,
        MemberChanged,
        OwnerChanged,
        AttributesChanged,
        TopicCreated,
        TopicsDismissed,
        TopicProfileChanged,
    )
}


class UndecodableEvent(Event, frozen=True, kw_only=True, gc=False):
    """A stored event that this version cannot decode."""

    TOPIC = "Undecodable"
    stored_type: str
    reason: str


_NO_EVIDENCE: Final = (TopicCreated, TopicsDismissed, TopicProfileChanged, UndecodableEvent)


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event with its position in the whole store and its version in its group's stream, both from 1.

    A version of 0 is unknown.
    """

    position: int
    event: Event
    version: int = 0


def concerns_group(event: Event) -> bool:
    """Tell whether an event is evidence about the group: neither about a topic in it nor undecodable."""
    return event.topic_id is None and type(event) not in _NO_EVIDENCE
