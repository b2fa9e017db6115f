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

    An event whose `SOURCE` is "reconcile" was observed: `callback` is the part of the vendor's answer concerned.
    """

    TOPIC: ClassVar[str]
    SOURCE: ClassVar[Literal["callback", "reconcile"]] = "callback"

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


class GroupObserved(ProfileFact, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The vendor's answer showed the group, with these values; None means that a value was not compared, or agreed.

    `created_at` is in ms; `member_limit` is None if the group has none. `reasons` name the differences that led to the
    event, and `run` the reconciliation. `asked_at` is when the request was sent, in ms by this machine's clock.
    """

    TOPIC = "GroupObserved"
    SOURCE = "reconcile"
    custom_fields_gone: tuple[Text, ...] = ()
    created_at: int | None = None
    member_limit: int | None = None
    is_full: bool | None = None
    run: int = 0
    asked_at: int = 0
    reasons: tuple[str, ...] = ()


class Observation(Event, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an answer of the vendor showed; `run`, `asked_at` and `reasons` are as in GroupObserved."""

    SOURCE = "reconcile"
    run: int = 0
    asked_at: int = 0
    reasons: tuple[str, ...] = ()


class ObservedMember(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A member as observed, since `joined_at` (ms) without a break. Without a role: Member; without a card: none."""

    joined_at: int
    role: str | None = None
    name_card: Text | None = None


class MembersObserved(Observation, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The vendor's answer showed these users as members."""

    TOPIC = "MembersObserved"
    members: dict[Account, ObservedMember]


class MembersObservedAbsent(Observation, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The vendor, asked about these users, answered that they are no members."""

    TOPIC = "MembersObservedAbsent"
    members: tuple[Account, ...]


class AttributesObserved(Observation, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The vendor's answer showed these attributes, and lacked those that are `gone`."""

    TOPIC = "AttributesObserved"
    attributes: dict[Text, Text] = {}
    gone: tuple[Text, ...] = ()


class GroupObservedAbsent(Observation, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The vendor answered twice that the group does not exist."""

    TOPIC = "GroupObservedAbsent"


class RosterObserved(Observation, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A roster was read to its end, and every member in it is known."""

    TOPIC = "RosterObserved"
    member_count: int = 0


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
        GroupObserved,
        MembersObserved,
        MembersObservedAbsent,
        AttributesObserved,
        GroupObservedAbsent,
        RosterObserved,
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


def type_name(event: Event) -> str:
    """Return the name under which an event is stored, also if it cannot be decoded."""
    return event.stored_type if isinstance(event, UndecodableEvent) else event.TOPIC


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
