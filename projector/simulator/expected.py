"""The state of a group that `/v1` must show once all callbacks have arrived.

It shares nothing with the projector's own rules. The simulator knows the order of events, so each callback simply
changes the state.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from projector.simulator import commands

Callback = dict[str, Any]
"""The body of a callback."""

_TEXTS: Final = {
    "Name": "name",
    "Introduction": "introduction",
    "Notification": "notification",
    "FaceUrl": "face_url",
}


@dataclass(slots=True)
class ExpectedMember:
    """A member as `/v1` must show it. `joined_at` is in ms since 1970 UTC, None if it is the time of receipt."""

    join_type: str
    operator: str | None
    joined_at: int | None
    role: str = "Member"
    name_card: str | None = None


@dataclass(slots=True)
class ExpectedGroup:
    """A group as `/v1` must show it, with the same field names; None is unknown."""

    type: str | None = None
    status: str = "active"
    roster_complete: bool = False
    is_full: bool = False
    owner: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    custom_fields: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    members: dict[str, ExpectedMember] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """Return the fields that `/v1/groups/{group_id}` must show."""
        count = len(self.members)
        return {
            "type": self.type,
            "status": self.status,
            **{name: self.texts.get(name) for name in _TEXTS.values()},
            "owner": self.owner,
            "custom_fields": self.custom_fields,
            "attributes": self.attributes,
            "member_count": count,
            "member_limit": count if self.is_full and self.roster_complete else None,
            "roster_complete": self.roster_complete,
            "is_full": self.is_full,
        }

    def role_of(self, user: str) -> str:
        return "Owner" if user == self.owner else self.members[user].role


def apply(group: ExpectedGroup, callback: Callback) -> None:
    """Apply a callback, which happened after all those applied before."""
    change = _CHANGES.get(callback["CallbackCommand"])
    if change is None or "TopicId" in callback:
        return
    change(group, callback)
    group.type = callback.get("Type", group.type)


def _created(group: ExpectedGroup, callback: Callback) -> None:
    if group.status == "dismissed":
        group.status, group.owner = "active", None
        group.texts, group.custom_fields, group.attributes = {}, {}, {}
    group.roster_complete = True
    _profile_changed(group, callback)
    owner = callback.get("Owner_Account")
    _join(group, [*_accounts(callback, "MemberList"), *([owner] if owner else [])], "Created", callback)


def _joined(group: ExpectedGroup, callback: Callback) -> None:
    _join(group, _accounts(callback, "NewMemberList"), callback["JoinType"], callback)


def _join(group: ExpectedGroup, users: Iterable[str], join_type: str, callback: Callback) -> None:
    operator, event_time = callback["Operator_Account"], callback.get("EventTime")
    joined_at = None if event_time is None else int(event_time)
    group.members.update({user: ExpectedMember(join_type, operator, joined_at) for user in users})


def _left(group: ExpectedGroup, callback: Callback) -> None:
    for user in _accounts(callback, "ExitMemberList"):
        group.members.pop(user, None)
        group.is_full = False
        if user == group.owner:
            group.owner = None


def _filled(group: ExpectedGroup, _: Callback) -> None:
    group.is_full = True


def _dismissed(group: ExpectedGroup, callback: Callback) -> None:
    _profile_changed(group, callback)
    group.status, group.is_full = "dismissed", False
    group.members.clear()


def _profile_changed(group: ExpectedGroup, callback: Callback) -> None:
    group.texts |= {name: callback[key] for key, name in _TEXTS.items() if key in callback}
    group.custom_fields |= {pair["Key"]: pair["Value"] for pair in callback.get("UserDefinedDataList", ())}
    if "Owner_Account" in callback:
        group.owner = callback["Owner_Account"] or None


def _member_changed(group: ExpectedGroup, callback: Callback) -> None:
    member = group.members.get(callback.get("Member_Account") or callback["Modified_Account"])
    if member:
        member.role = callback.get("Role", member.role)
        member.name_card = callback.get("NameCard", member.name_card)


def _owner_changed(group: ExpectedGroup, callback: Callback) -> None:
    group.owner = callback["NewOwner_Account"] or None


def _attributes_changed(group: ExpectedGroup, callback: Callback) -> None:
    named = {pair["key"]: pair.get("value", "") for pair in callback.get("GroupAttr", ())}
    match callback["OptionType"]:
        case "set":
            group.attributes = named
        case "modify":
            group.attributes |= named
        case "delete":
            group.attributes = {key: value for key, value in group.attributes.items() if key not in named}
        case "clear":
            group.attributes = {}


def _accounts(callback: Callback, key: str) -> list[str]:
    return [account["Member_Account"] for account in callback.get(key, ())]


_CHANGES: Final[dict[str, Callable[[ExpectedGroup, Callback], None]]] = {
    commands.CREATED: _created,
    commands.JOINED: _joined,
    commands.LEFT: _left,
    commands.FILLED: _filled,
    commands.DISMISSED: _dismissed,
    commands.PROFILE_CHANGED: _profile_changed,
    commands.MEMBER_CHANGED: _member_changed,
    commands.OWNER_CHANGED: _owner_changed,
    commands.ATTRIBUTES_CHANGED: _attributes_changed,
}
