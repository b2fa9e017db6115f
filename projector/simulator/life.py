"""The life of one simulated group: a consistent sequence of callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import msgspec

from projector.simulator import commands, names
from projector.simulator.expected import Callback, ExpectedGroup, apply
from projector.simulator.kinds import Kind

_PLATFORMS: Final = ("Android", "iOS", "Web", "Windows", "macOS", "iPad")
_UNSEEN_CREATION_SHARE: Final = 0.05
_DISMISSED_SHARE: Final = 0.15
_MAX_FOUNDERS: Final = 5

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_Item = TypeVar("_Item")


class Delivery(NamedTuple):
    """A callback as the vendor sends it. `happened_at` is in ms since 1970 UTC; `timed` bodies have an EventTime."""

    group_id: str
    command: str
    platform: str
    body: bytes
    happened_at: int
    timed: bool


class Life:
    """One group, from its creation, or from when callbacks were switched on, until now or its dismissal.

    `user_numbers` are those of the users who may join, at least 16. After each delivery, `expected` is the state that a
    receiver of all deliveries so far must show.
    """

    def __init__(self, rng: Random, group_id: str, kind: Kind, user_numbers: range, *, custom_id: bool) -> None:
        self.group_id = group_id
        self.expected = ExpectedGroup()
        self._rng = rng
        self._kind = kind
        self._user_numbers = user_numbers
        self._may_be_recreated = custom_id
        self._limit = (
            rng.randint(_MAX_FOUNDERS + 1, len(user_numbers) // 2) if kind.has_limit and self._chance(0.3) else None
        )
        self._max_members = self._limit or len(user_numbers) // 2
        self._joined: list[str] = []
        self._has_begun = self._chance(_UNSEEN_CREATION_SHARE)
        self._ends_dismissed = self._chance(_DISMISSED_SHARE)

    @property
    def limit(self) -> int | None:
        """How many members the group may have, None if that is out of reach."""
        return self._limit

    def deliveries(self, moments: Sequence[int], timed: int) -> Iterator[Delivery]:
        """Yield a callback for each moment (ms, ascending); only the first `timed` of them have an EventTime."""
        for index, moment in enumerate(moments):
            callback = self._next(is_last=index == len(moments) - 1)
            if index < timed:
                callback["EventTime"] = str(moment) if self._chance(0.1) else moment
            apply(self.expected, callback)
            operator = callback.get("Operator_Account", names.ADMINISTRATOR)
            platform = "RESTAPI" if operator == names.ADMINISTRATOR else self._rng.choice(_PLATFORMS)
            command = callback["CallbackCommand"]
            yield Delivery(self.group_id, command, platform, _encode(callback), moment, index < timed)

    def _next(self, *, is_last: bool) -> Callback:
        if not self._has_begun or self.expected.status == "dismissed":
            self._has_begun = True
            return self._create()
        if not self.expected.type:
            return self._add_members(1)
        if is_last and self._ends_dismissed:
            return self._dismiss()
        if len(self.expected.members) == self._limit and not self.expected.is_full:
            return self._report_full()
        while True:
            (change,) = self._rng.choices([*self._CHANGES], [*self._CHANGES.values()])
            if callback := change(self):
                return callback

    def _create(self) -> Callback:
        founder, *others = self._newcomers(self._rng.randint(1, _MAX_FOUNDERS))
        callback = self._callback(commands.CREATED, founder, Name=self._rng.choice(names.TITLES))
        if self._chance(0.9):
            callback["Owner_Account"] = founder
        else:
            callback["Operator_Account"] = names.ADMINISTRATOR
        if self._kind.creation_lists_members:
            listed = others if self._chance(0.4) else [founder, *others]
            callback["MemberList"] = _accounts(listed)
        if self._chance(0.3):
            callback["UserDefinedDataList"] = self._custom_fields()
        if self._chance(0.3):
            callback["InviteOption"] = "NeedPermission"
        self._joined += [founder, *others]
        return callback

    def _join(self) -> Callback | None:
        room = self._max_members - len(self.expected.members)
        if room > 0:
            return self._add_members(min(room, self._rng.choice((1, 1, 1, 1, 2, 3, 5))))
        return self._report_full() if self._limit and self._chance(0.1) else None

    def _add_members(self, maximum: int) -> Callback:
        join_type = self._rng.choice(self._kind.join_types)
        newcomers = self._newcomers(1 if join_type == "Apply" else maximum)
        operator = newcomers[0] if join_type == "Apply" else self._member() or names.ADMINISTRATOR
        self._joined += newcomers
        return self._callback(commands.JOINED, operator, JoinType=join_type, NewMemberList=_accounts(newcomers))

    def _quit(self) -> Callback | None:
        user = self._member()
        if user is None or (user == self.expected.owner and not self._kind.owner_may_quit):
            return None
        return self._callback(commands.LEFT, user, ExitType="Quit", ExitMemberList=_accounts([user]))

    def _kick(self) -> Callback | None:
        candidates = [self._member() for _ in range(self._rng.choice((1, 1, 1, 2, 3)))]
        kicked = [user for user in dict.fromkeys(candidates) if user is not None and user != self.expected.owner]
        if not kicked or not self._kind.members_are_kicked:
            return None
        return self._callback(commands.LEFT, self._operator(), ExitType="Kicked", ExitMemberList=_accounts(kicked))

    def _report_full(self) -> Callback:
        return {"CallbackCommand": commands.FILLED, "GroupId": self.group_id}

    def _dismiss(self) -> Callback:
        known = {"Name": self.expected.texts.get("name"), "Owner_Account": self.expected.owner}
        fields: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
        if self._kind.dismissal_lists_members:
            fields["MemberList"] = _accounts(self.expected.members)
        return self._callback(commands.DISMISSED, self._operator(), **fields)

    def _dismiss_to_recreate(self) -> Callback | None:
        return self._dismiss() if self._may_be_recreated and self._chance(0.1) else None

    def _edit_profile(self) -> Callback:
        texts = {key: self._rng.choice(names.TEXTS) for key in ("Introduction", "Notification")}
        texts["Name"] = self._rng.choice(names.TITLES)
        texts["FaceUrl"] = self._rng.choice(("", f"https://example.com/faces/{self._rng.randrange(1000)}.png?s=64"))
        edited = self._sample(tuple(texts), 4)
        return self._callback(commands.PROFILE_CHANGED, self._operator(), **{key: texts[key] for key in edited})

    def _edit_custom_fields(self) -> Callback:
        fields = self._custom_fields()
        return self._callback(commands.PROFILE_CHANGED, self._operator(), UserDefinedDataList=fields)

    def _edit_member(self) -> Callback | None:
        user = self._member()
        if user is None:
            return None
        changed: dict[str, Any] = {self._rng.choice(("Member_Account", "Modified_Account")): user}
        if self._kind.has_admins and user != self.expected.owner and self._chance(0.5):
            changed["Role"] = self._rng.choice(("Admin", "Admin", "Member"))
        if "Role" not in changed or self._chance(0.2):
            changed["NameCard"] = self._rng.choice(names.TEXTS)
        return self._callback(commands.MEMBER_CHANGED, self._operator(), **changed)

    def _change_owner(self) -> Callback | None:
        user, owner = self._member(), self.expected.owner
        if user is None or user == owner or not self._kind.owner_may_change:
            return None
        return self._callback(
            commands.OWNER_CHANGED, self._operator(), NewOwner_Account=user, OldOwner_Account=owner or ""
        )

    def _edit_attributes(self) -> Callback:
        operation = self._rng.choice(("set", "modify", "modify", "delete", "clear"))
        changed: dict[str, Any] = {"OptionType": operation}
        keys = self._sample(names.FIELD_KEYS, 3)
        if operation == "delete":
            changed["GroupAttr"] = [{"key": key} for key in keys]
        elif operation != "clear":
            changed["GroupAttr"] = [{"key": key, "value": self._rng.choice(names.TEXTS)} for key in keys]
        return self._callback(commands.ATTRIBUTES_CHANGED, self._operator(), **changed)

    def _change_topics(self) -> Callback | None:
        if not self._kind.has_topics:
            return None
        topic = f"{self.group_id}@TOPIC#_{self._rng.randrange(100)}"
        operator, title = self._operator(), self._rng.choice(names.TITLES)
        return self._rng.choice(
            (
                self._callback(commands.TOPIC_CREATED, operator, TopicId=topic, Name=title),
                self._callback(commands.TOPIC_DISMISSED, operator, TopicIdList=[topic]),
                self._callback(commands.TOPIC_CHANGED, operator, Name=title),
                self._report_full() | {"TopicId": topic},
            )
        )

    def _chat(self) -> Callback:
        user = self._member() or names.user_id(self._user_numbers[0])
        element = {"MsgContent": {"Text": self._rng.choice(names.TEXTS)}, "MsgType": "TIMTextElem"}
        message = {"From_Account": user, "MsgBody": [element], "MsgSeq": self._rng.randrange(1, 10_000)}
        online = {"Action": "Login", "Reason": "Register", "To_Account": user}
        return self._rng.choice(
            (
                self._callback(commands.GROUP_MESSAGE, user, **message),
                {"CallbackCommand": commands.MESSAGE, "To_Account": names.ADMINISTRATOR, **message},
                {"CallbackCommand": commands.STATE, "Info": online},
            )
        )

    def _callback(self, command: str, operator: str, **fields: Any) -> Callback:
        return {
            "CallbackCommand": command,
            "GroupId": self.group_id,
            "Operator_Account": operator,
            "Type": self._kind.type,
            **fields,
        }

    def _custom_fields(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": self._rng.choice(names.TEXTS)} for key in self._sample(names.FIELD_KEYS, 3)]

    def _newcomers(self, count: int) -> list[str]:
        newcomers: dict[str, None] = {}
        while len(newcomers) < count:
            user = names.user_id(self._rng.choice(self._user_numbers))
            if user not in self.expected.members:
                newcomers[user] = None
        return list(newcomers)

    def _member(self) -> str | None:
        """Return a random member, None if there is none."""
        while self._joined:
            index = self._rng.randrange(len(self._joined))
            if (user := self._joined[index]) in self.expected.members:
                return user
            self._joined[index] = self._joined[-1]
            self._joined.pop()
        return None

    def _operator(self) -> str:
        return names.ADMINISTRATOR if self._chance(0.25) else self.expected.owner or names.ADMINISTRATOR

    def _sample(self, items: Sequence[_Item], maximum: int) -> list[_Item]:
        return self._rng.sample(items, self._rng.randint(1, maximum))

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    _CHANGES: ClassVar[dict[Callable[[Life], Callback | None], float]] = {
        _join: 40,
        _quit: 14,
        _kick: 5,
        _edit_profile: 8,
        _edit_custom_fields: 3,
        _edit_member: 8,
        _change_owner: 1.5,
        _edit_attributes: 5,
        _change_topics: 4,
        _chat: 10,
        _dismiss_to_recreate: 2,
    }
    """The possible changes, with their weights."""


def _accounts(users: Iterable[str]) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]
