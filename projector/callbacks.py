"""The vendor's callbacks: authentication, and translation into events. Pure; the only file that reads callbacks.

Sources are Tencent Cloud Chat's webhook documentation: the overview (intl. 1047/34354), the group callbacks (1047/34368
to 34378, 49464 to 49466, 60393, 60394, 60396), and, where it has more detail, the mainland edition (269/…).
"""

import hmac
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b, sha256
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

import msgspec

from projector.domain.events import (
    AttributesChanged,
    Event,
    GroupCreated,
    GroupDismissed,
    GroupFilled,
    GroupProfileChanged,
    MemberChanged,
    MembersJoined,
    MembersLeft,
    OwnerChanged,
    TopicCreated,
    TopicProfileChanged,
    TopicsDismissed,
)
from projector.domain.limits import MAX_ID_BYTES, utf8_length

SIGNATURE_WINDOW_S: Final = 60
"""How far `RequestTime` may differ from the receiver's clock, either way (mainland 269/117703)."""

FUTURE_TOLERANCE_MS: Final = 5 * 60 * 1000
"""An `EventTime` further ahead of the receiver's clock is replaced by the time of receipt."""

_MAX_IDENTITY_MS: Final = 2**48 - 1
"""Identities begin with the time, in six bytes, so that those of one time are adjacent in the database's index."""

_SECONDS_BELOW: Final = 100_000_000_000
"""A lower `EventTime` is in seconds: in milliseconds it would be before March 1973."""

_PLATFORMS: Final = {
    name.lower(): name for name in ("RESTAPI", "Web", "Android", "iOS", "Windows", "macOS", "iPad", "Unknown")
} | {"mac": "macOS"}

_ESCAPES: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\."
)

_Decoded = TypeVar("_Decoded")


class Forbidden(Exception):
    """The request is not authentic; the text gives the reason."""


class Unreadable(Exception):
    """The request is authentic but cannot be read as a callback; the text gives the reason."""


class Translation(NamedTuple):
    """A callback as an event.

    `identity` is the same for every delivery of one callback; None if the callback has no `EventTime`: a repeat
    then looks like a second, equal change. `from_future` is set if the time of receipt replaced the callback's own.
    """

    event: Event
    identity: bytes | None
    from_future: bool


def parameters(query_string: bytes) -> dict[str, str]:
    """Return a callback's query parameters, with names in lower case because the vendor's spelling varies."""
    text = query_string.decode("latin-1").replace("+", " ")
    pairs = [pair.partition("=") for pair in text.split("&") if pair]
    return {unquote(name).lower(): unquote(value) for name, _, value in pairs}


def authenticate(query: dict[str, str], *, sdk_app_id: int, tokens: Sequence[str], now_ms: int) -> None:
    """Check that the callback is for this app and, if tokens are set, that it is signed with one of them.

    The signature is the hex SHA-256 of the token followed by `RequestTime` (s). It covers neither the body nor the
    other parameters (1047/34354). Several tokens are accepted so that a token can be replaced.

    Raises Forbidden.
    """
    if query.get("sdkappid") != str(sdk_app_id):
        raise Forbidden("SdkAppid is missing or is that of another app")
    if not tokens:
        return
    signature, request_time = query.get("sign", ""), query.get("requesttime", "")
    if not signature or not request_time.isascii() or not request_time.isdigit() or len(request_time) > 15:
        raise Forbidden("Sign or RequestTime is missing or malformed")
    given = signature.lower().encode()
    matches = [
        hmac.compare_digest(sha256((token + request_time).encode()).hexdigest().encode(), given) for token in tokens
    ]
    if not any(matches):
        raise Forbidden("Sign does not match")
    if abs(now_ms - int(request_time) * 1000) > SIGNATURE_WINDOW_S * 1000:
        raise Forbidden(f"RequestTime is more than {SIGNATURE_WINDOW_S} s away from this server's clock")


def sign(token: str, request_time_s: int) -> str:
    """Return the `Sign` parameter for a `RequestTime`."""
    return sha256(f"{token}{request_time_s}".encode()).hexdigest()


def command_of(query: dict[str, str], body: bytes) -> str:
    """Return the callback's command, from the URL or the body.

    Raises Unreadable if the body is not a JSON object, if neither has a command, or if the two differ.
    """
    in_url = query.get("callbackcommand") or None
    in_body = _decode(body, _ENVELOPE).CallbackCommand or None
    if in_url and in_body and in_url != in_body:
        raise Unreadable(f"CallbackCommand is {in_url[:100]!r} in the URL and {in_body[:100]!r} in the body")
    if not (command := in_body or in_url):
        raise Unreadable("CallbackCommand is missing from both the URL and the body")
    return command


def carries_group_state(command: str) -> bool:
    """Tell whether callbacks with this command are recorded; all others are only acknowledged and counted."""
    return command in _TRANSLATORS


def translate(command: str, body: bytes, *, platform: str | None, received_at: int) -> Translation:
    """Translate the body of a group state callback into an event.

    `platform` is the `OptPlatform` parameter; `received_at` is in ms since 1970 UTC.

    Raises Unreadable, with the name of the field that is missing or has a wrong type.
    """
    fields = _decode(body, _FIELDS)
    if "GroupId" not in fields and "groupID" in fields:
        fields["GroupId"] = fields["groupID"]  # as spelled in the field table of 1047/34369
    callback_type, translator = _TRANSLATORS[command]
    try:
        callback = msgspec.convert(fields, callback_type)
    except msgspec.ValidationError as error:
        raise Unreadable(str(error)) from None
    event_time = _milliseconds(callback.EventTime)
    from_future = event_time is not None and event_time > received_at + FUTURE_TOLERANCE_MS
    event = translator(
        callback,
        {
            "group_id": _id(callback.GroupId, "GroupId"),
            "occurred_at": received_at if event_time is None or from_future else event_time,
            "recorded_at": received_at,
            "group_type": callback.Type or None,
            "operator": callback.Operator_Account or None,
            "platform": _PLATFORMS.get(platform.lower(), platform) if platform else None,
            "topic_id": callback.TopicId or None,
            "callback": body.decode(),
        },
    )
    identity = None if event_time is None else _identity(command, event.group_id, event_time, fields)
    return Translation(event, identity, from_future)


def _decode(body: bytes, decoder: msgspec.json.Decoder[_Decoded]) -> _Decoded:
    """Decode strict JSON; lone surrogates, which cannot be stored as UTF-8, become U+FFFD."""
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            repaired = _ESCAPES.sub(_repair, body.decode())
            return decoder.decode(repaired)
    except msgspec.ValidationError as error:
        raise Unreadable(f"not a readable callback: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("not a readable callback: nested too deeply") from None


def _repair(escape: re.Match[str]) -> str:
    return r"\ufffd" if len(escape[0]) == len(r"\ud800") else escape[0]


def _milliseconds(event_time: int | str | None) -> int | None:
    if isinstance(event_time, str):
        if event_time and not (event_time.isascii() and event_time.isdigit() and len(event_time) <= 20):
            raise Unreadable("EventTime is neither an integer nor a string of digits")
        event_time = int(event_time or "0")
    if not event_time:
        return None
    if event_time < 0:
        raise Unreadable("EventTime is negative")
    return event_time * 1000 if event_time < _SECONDS_BELOW else event_time


def _identity(command: str, group_id: str, event_time: int, fields: dict[str, Any]) -> bytes:
    content = _encode_sorted(fields | {"EventTime": event_time})
    digest = blake2b(b"\n".join((command.encode(), group_id.encode(), content)), digest_size=12).digest()
    return min(event_time, _MAX_IDENTITY_MS).to_bytes(6, "big") + digest


class _Envelope(msgspec.Struct):
    CallbackCommand: str | None = None


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_FIELDS: Final = msgspec.json.Decoder(dict[str, Any])
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode


class _Account(msgspec.Struct):
    Member_Account: str


class _KeyValue(msgspec.Struct):
    Key: str
    Value: str


class _Attribute(msgspec.Struct):
    key: str
    value: str | None = None


class _Callback(msgspec.Struct, kw_only=True):
    GroupId: str
    EventTime: int | str | None = None
    Type: str | None = None
    Operator_Account: str | None = None
    TopicId: str | None = None


class _ProfileCallback(_Callback, kw_only=True):
    Name: str | None = None
    Introduction: str | None = None
    Notification: str | None = None
    FaceUrl: str | None = None
    Owner_Account: str | None = None
    UserDefinedDataList: list[_KeyValue] | None = None
    MemberList: list[_Account] | None = None


class _Join(_Callback, kw_only=True):
    NewMemberList: list[_Account]
    JoinType: str | None = None


class _Exit(_Callback, kw_only=True):
    ExitMemberList: list[_Account]
    ExitType: str | None = None


class _MemberField(_Callback, kw_only=True):
    Member_Account: str | None = None
    Modified_Account: str | None = None
    Role: str | None = None
    NameCard: str | None = None


class _Owner(_Callback, kw_only=True):
    NewOwner_Account: str
    OldOwner_Account: str | None = None


class _Attributes(_Callback, kw_only=True):
    OptionType: str
    GroupAttr: list[_Attribute] | None = None


class _Topics(_Callback, kw_only=True):
    TopicIdList: list[str] | str | None = None


def _id(value: str, field: str) -> str:
    if not value:
        raise Unreadable(f"{field} is empty")
    if utf8_length(value) > MAX_ID_BYTES:
        raise Unreadable(f"{field} is longer than {MAX_ID_BYTES} bytes")
    return value


def _users(accounts: list[_Account] | None) -> tuple[str, ...]:
    return tuple(_id(account.Member_Account, "Member_Account") for account in accounts or ())


def _profile(callback: _ProfileCallback) -> dict[str, Any]:
    if callback.Owner_Account:
        _id(callback.Owner_Account, "Owner_Account")
    return {
        "name": callback.Name,
        "introduction": callback.Introduction,
        "notification": callback.Notification,
        "face_url": callback.FaceUrl,
        "custom_fields": {field.Key: field.Value for field in callback.UserDefinedDataList or ()},
    }


def _created(callback: _ProfileCallback, common: dict[str, Any]) -> Event:
    return GroupCreated(
        **common,
        **_profile(callback),
        owner=callback.Owner_Account,
        members=_users(callback.MemberList),
    )


def _joined(callback: _Join, common: dict[str, Any]) -> Event:
    join_type = _JOIN_TYPES.get(callback.JoinType or "")
    return MembersJoined(**common, members=_users(callback.NewMemberList), join_type=join_type)


def _left(callback: _Exit, common: dict[str, Any]) -> Event:
    return MembersLeft(**common, members=_users(callback.ExitMemberList), exit_type=callback.ExitType)


def _filled(_: _Callback, common: dict[str, Any]) -> Event:
    return GroupFilled(**common)


def _dismissed(callback: _ProfileCallback, common: dict[str, Any]) -> Event:
    return GroupDismissed(**common, **_profile(callback), owner=callback.Owner_Account)


def _profile_changed(callback: _ProfileCallback, common: dict[str, Any]) -> Event:
    return GroupProfileChanged(**common, **_profile(callback))


def _member_changed(callback: _MemberField, common: dict[str, Any]) -> Event:
    member = callback.Member_Account or callback.Modified_Account or ""
    role = None if callback.Role is None else callback.Role.strip()
    return MemberChanged(**common, member=_id(member, "Member_Account"), role=role, name_card=callback.NameCard)


def _owner_changed(callback: _Owner, common: dict[str, Any]) -> Event:
    if callback.NewOwner_Account:
        _id(callback.NewOwner_Account, "NewOwner_Account")
    return OwnerChanged(**common, owner=callback.NewOwner_Account, previous_owner=callback.OldOwner_Account)


def _attributes_changed(callback: _Attributes, common: dict[str, Any]) -> Event:
    operation = callback.OptionType.lower()
    if operation not in _OPERATIONS:
        raise Unreadable(f"OptionType {callback.OptionType[:100]!r} is not one of {', '.join(_OPERATIONS)}")
    attributes = {attribute.key: attribute.value or "" for attribute in callback.GroupAttr or ()}
    return AttributesChanged(**common, operation=_OPERATIONS[operation], attributes=attributes)


def _topic_created(_: _Callback, common: dict[str, Any]) -> Event:
    return TopicCreated(**common)


def _topics_dismissed(callback: _Topics, common: dict[str, Any]) -> Event:
    listed = callback.TopicIdList or ()
    return TopicsDismissed(**common, topic_ids=(listed,) if isinstance(listed, str) else tuple(listed))


def _topic_profile_changed(_: _Callback, common: dict[str, Any]) -> Event:
    return TopicProfileChanged(**common)


_JOIN_TYPES: Final[dict[str, Literal["Apply", "Invited"]]] = {"Apply": "Apply", "Invited": "Invited"}
_Operation = Literal["set", "modify", "clear", "delete"]
_OPERATIONS: Final[dict[str, _Operation]] = {
    "set": "set",
    "modify": "modify",
    "clear": "clear",
    "delete": "delete",
}

_TRANSLATORS: Final[dict[str, tuple[type[_Callback], Callable[[Any, dict[str, Any]], Event]]]] = {
    "Group.CallbackAfterCreateGroup": (_ProfileCallback, _created),
    "Group.CallbackAfterNewMemberJoin": (_Join, _joined),
    "Group.CallbackAfterMemberExit": (_Exit, _left),
    "Group.CallbackAfterGroupFull": (_Callback, _filled),
    "Group.CallbackAfterGroupDestroyed": (_ProfileCallback, _dismissed),
    "Group.CallbackAfterGroupInfoChanged": (_ProfileCallback, _profile_changed),
    "Group.CallbackAfterMemberFieldChanged": (_MemberField, _member_changed),
    "Group.CallbackAfterChangeGroupOwner": (_Owner, _owner_changed),
    "Group.CallbackAfterGroupAttrChanged": (_Attributes, _attributes_changed),
    "Group.CallbackAfterCreateTopic": (_Callback, _topic_created),
    "Group.CallbackAfterTopicDestroyed": (_Topics, _topics_dismissed),
    "Group.CallbackAfterTopicInfoChanged": (_Callback, _topic_profile_changed),
}
