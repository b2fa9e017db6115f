"""A single callback of a chosen command, with the fields that the vendor sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from projector.simulator import commands, names
from projector.simulator.connection import Connection, Response
from projector.simulator.expected import Callback
from projector.simulator.options import Options
from projector.simulator.request import target

NEED_USER: Final = (
    commands.CREATED,
    commands.JOINED,
    commands.LEFT,
    commands.MEMBER_CHANGED,
    commands.OWNER_CHANGED,
)
"""Commands about users; of the others, the first user is the operator."""

_PLATFORM: Final = "RESTAPI"
_TEXT: Final = "Sent by projector simulate"


class Exchange(NamedTuple):
    """A callback as it was sent, and the response. `url` is the receiver's address with path and query."""

    url: str
    body: bytes
    response: Response


async def send(options: Options, callback: Callback) -> Exchange:
    """Send a callback. Raises Unreachable."""
    address, body = target(options, callback["CallbackCommand"], _PLATFORM), msgspec.json.encode(callback)
    async with Connection(options.url) as connection:
        response = await connection.post(address, body)
    return Exchange(f"{options.url.rstrip('/')}{address}", body, response)


def compose(command: str, group_id: str, users: Sequence[str], *, now_ms: int) -> Callback:
    """Return a callback of one of the recorded commands, which happened at `now_ms`. Some need at least one user."""
    fields = _FIELDS[command](group_id, users)
    operator = {} if command == commands.FILLED else {"Operator_Account": users[0] if users else names.ADMINISTRATOR}
    return {"CallbackCommand": command, "GroupId": group_id, "EventTime": now_ms, **operator, **fields}


def _created(group_id: str, users: Sequence[str]) -> dict[str, Any]:
    return {"Type": "Public", "Name": group_id, "Owner_Account": users[0], "MemberList": _accounts(users)}


def _joined(_: str, users: Sequence[str]) -> dict[str, Any]:
    return {"JoinType": "Apply" if len(users) == 1 else "Invited", "NewMemberList": _accounts(users)}


def _left(_: str, users: Sequence[str]) -> dict[str, Any]:
    return {"ExitType": "Quit" if len(users) == 1 else "Kicked", "ExitMemberList": _accounts(users)}


def _accounts(users: Sequence[str]) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]


_FIELDS: Final[dict[str, Callable[[str, Sequence[str]], dict[str, Any]]]] = {
    commands.CREATED: _created,
    commands.JOINED: _joined,
    commands.LEFT: _left,
    commands.FILLED: lambda *_: {},
    commands.DISMISSED: lambda group_id, users: {"Name": group_id, "MemberList": _accounts(users)},
    commands.PROFILE_CHANGED: lambda *_: {"Notification": _TEXT},
    commands.MEMBER_CHANGED: lambda _, users: {"Member_Account": users[0], "NameCard": _TEXT},
    commands.OWNER_CHANGED: lambda _, users: {"NewOwner_Account": users[0], "OldOwner_Account": ""},
    commands.ATTRIBUTES_CHANGED: lambda *_: {"OptionType": "modify", "GroupAttr": [{"key": "sent", "value": _TEXT}]},
    commands.TOPIC_CREATED: lambda group_id, _: {"TopicId": _topic(group_id), "Name": _TEXT},
    commands.TOPIC_DISMISSED: lambda group_id, _: {"TopicIdList": [_topic(group_id)]},
    commands.TOPIC_CHANGED: lambda group_id, _: {"TopicId": _topic(group_id), "Name": _TEXT},
}


def _topic(group_id: str) -> str:
    return f"{group_id}@TOPIC#_1"
