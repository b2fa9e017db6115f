"""The vendor's groups: the true state, whatever callbacks reported."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar, Final

from projector.simulator import commands

Callback = dict[str, Any]

DEFAULT_LIMIT: Final = 6_000
_TEXTS: Final = ("Name", "Introduction", "Notification", "FaceUrl")


@dataclass(slots=True)
class VendorMember:
    """A member; `joined_s` is in s since 1970 UTC."""

    joined_s: int
    role: str = "Member"
    name_card: str = ""


@dataclass(slots=True)
class VendorGroup:
    """A group in its present life. Members are in the order in which they joined."""

    type: str
    created_s: int
    limit: int = DEFAULT_LIMIT
    owner: str = ""
    texts: dict[str, str] = field(default_factory=lambda: dict.fromkeys(_TEXTS, ""))
    custom_fields: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    members: dict[str, VendorMember] = field(default_factory=dict)
    info_seq: int = 1


class VendorGroups:
    """All groups of an app. With `keeps_versions`, they can be read as they were at an earlier moment."""

    def __init__(self, *, keeps_versions: bool = False) -> None:
        self._groups: dict[str, VendorGroup] = {}
        self._versions: dict[str, list[tuple[int, VendorGroup | None]]] | None = {} if keeps_versions else None
        self._order: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def find(self, group_id: str, as_of_ms: int | None = None) -> VendorGroup | None:
        """Return a group that exists, or that existed at a moment (ms)."""
        if self._versions is None or as_of_ms is None:
            return self._groups.get(group_id)
        versions = [group for at, group in self._versions.get(group_id, ()) if at <= as_of_ms]
        return versions[-1] if versions else None

    def page(self, after: int, limit: int) -> tuple[list[str], int]:
        """Return ids after a key, ordered by a hash, and the key of the next page, 0 if there is none.

        A group that exists throughout comes once, whatever is created and dismissed meanwhile.
        """
        start = bisect_right(self._order, (after, "\U0010ffff")) if after else 0
        chosen = self._order[start : start + limit]
        is_last = start + limit >= len(self._order)
        return [group_id for _, group_id in chosen], 0 if is_last else chosen[-1][0]

    def count(self) -> int:
        return len(self._groups)

    def add(self, group_id: str, group: VendorGroup, *, at_ms: int = 0) -> None:
        """Import a group, of which no callback tells."""
        if group_id not in self._groups:
            insort(self._order, (hash_key(group_id), group_id))
        self._groups[group_id] = group
        self._keep_version(group_id, at_ms)

    def remove(self, group_id: str, *, at_ms: int = 0) -> None:
        if self._groups.pop(group_id, None):
            self._order.remove((hash_key(group_id), group_id))
            self._keep_version(group_id, at_ms)

    def apply(self, callback: Callback, *, at_ms: int) -> None:
        """Change what a callback tells of, at a moment in ms. A group that is not known was imported before."""
        change = self._CHANGES.get(callback["CallbackCommand"])
        if change is None or "TopicId" in callback:
            return
        group_id = callback["GroupId"]
        if change is VendorGroups._create or group_id not in self._groups:
            self.add(group_id, VendorGroup(callback.get("Type", "Public"), at_ms // 1_000))
        change(self, self._groups[group_id], callback, at_ms)
        self._keep_version(group_id, at_ms)

    def _keep_version(self, group_id: str, at_ms: int) -> None:
        if self._versions is not None:
            self._versions.setdefault(group_id, []).append((at_ms, deepcopy(self._groups.get(group_id))))

    def _create(self, group: VendorGroup, callback: Callback, at_ms: int) -> None:
        self._edit(group, callback, at_ms)
        owner = [group.owner] if group.owner else []
        _join(group, [*owner, *_accounts(callback, "MemberList")], at_ms)

    def _join(self, group: VendorGroup, callback: Callback, at_ms: int) -> None:
        _join(group, _accounts(callback, "NewMemberList"), at_ms)

    def _leave(self, group: VendorGroup, callback: Callback, _: int) -> None:
        for user in _accounts(callback, "ExitMemberList"):
            group.members.pop(user, None)
            group.owner = "" if user == group.owner else group.owner

    def _dismiss(self, _: VendorGroup, callback: Callback, at_ms: int) -> None:
        self.remove(callback["GroupId"], at_ms=at_ms)

    def _edit(self, group: VendorGroup, callback: Callback, _: int) -> None:
        group.texts |= {name: callback[name] for name in _TEXTS if name in callback}
        group.custom_fields |= {pair["Key"]: pair["Value"] for pair in callback.get("UserDefinedDataList", ())}
        group.owner = callback.get("Owner_Account", group.owner)
        group.info_seq += 1

    def _edit_member(self, group: VendorGroup, callback: Callback, _: int) -> None:
        if member := group.members.get(callback.get("Member_Account") or callback["Modified_Account"]):
            member.role = callback.get("Role", member.role)
            member.name_card = callback.get("NameCard", member.name_card)

    def _change_owner(self, group: VendorGroup, callback: Callback, _: int) -> None:
        group.owner = callback["NewOwner_Account"]

    def _edit_attributes(self, group: VendorGroup, callback: Callback, _: int) -> None:
        named = {pair["key"]: pair.get("value", "") for pair in callback.get("GroupAttr", ())}
        operation = callback["OptionType"]
        if operation in ("set", "clear"):
            group.attributes = {}
        if operation in ("set", "modify"):
            group.attributes |= named
        if operation == "delete":
            for key in named:
                group.attributes.pop(key, None)

    _CHANGES: ClassVar[dict[str, Callable[[VendorGroups, VendorGroup, Callback, int], None]]] = {
        commands.CREATED: _create,
        commands.JOINED: _join,
        commands.LEFT: _leave,
        commands.DISMISSED: _dismiss,
        commands.PROFILE_CHANGED: _edit,
        commands.MEMBER_CHANGED: _edit_member,
        commands.OWNER_CHANGED: _change_owner,
        commands.ATTRIBUTES_CHANGED: _edit_attributes,
    }


@lru_cache(maxsize=200_000)
def hash_key(text: str) -> int:
    """Return a number above 2^32 for a text, by which lists are ordered."""
    return (1 << 63) | int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big")


def _join(group: VendorGroup, users: Iterable[str], at_ms: int) -> None:
    for user in users:
        group.members.pop(user, None)
        group.members[user] = VendorMember(at_ms // 1_000)


def _accounts(callback: Callback, key: str) -> list[str]:
    return [account["Member_Account"] for account in callback.get(key, ())]
