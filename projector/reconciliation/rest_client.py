"""The vendor's REST API: signed requests within a rate, and answers in this project's terms.

The only file that knows the API's commands and fields. Sources are Tencent Cloud Chat's documentation of the REST API
(269/1519, 1047/34620), of UserSig (1047/34385), and of `get_appid_group_list` (269/1614), `get_group_info` (269/1616),
`get_group_member_info` (269/1617), `get_role_in_group` (269/1626) and `get_group_attr` (1047/44187).
"""

import asyncio
import base64
import hashlib
import hmac
import json
import random
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Self

import httpx2
import msgspec

from projector.clock import now_ms
from projector.reconciliation.pace import Pace
from projector.reconciliation.rest_errors import (
    ACTIONS,
    GONE_CODES,
    NOT_FOR_TYPE_CODES,
    TOO_LARGE_CODE,
    Action,
    Gone,
    NotForType,
    Refused,
    TooLarge,
    Unavailable,
    remedy,
)
from projector.reconciliation.vendor_clock import VendorClock

MAX_GROUPS: Final = 50
MAX_USERS: Final = 500
"""How many groups, or users of a group, one request may name."""

COMMUNITY: Final = "Community"
"""The type of the groups whose roster can only be read by pages."""

WITHOUT_ROSTER: Final = "AVChatRoom"
"""The type of the groups whose roster cannot be read."""

_GROUPS: Final = "group_open_http_svc"
_ATTRIBUTES: Final = "group_open_attr_http_svc"
_LIST: Final = "get_appid_group_list"
_LIST_RATE: Final = 0.9
"""Requests for the list a second; the vendor allows one."""

_LIST_LIMIT: Final = 10_000
_PAGE_LIMIT: Final = 200
_BASE_FIELDS: Final = (
    *("Type", "Name", "Introduction", "Notification", "FaceUrl", "Owner_Account", "Appid", "CreateTime"),
    *("MemberNum", "MaxMemberNum"),
)
_MEMBER_FIELDS: Final = ("Role", "JoinTime", "NameCard")
_TIMEOUT: Final = httpx2.Timeout(8, connect=3)
_TIMEOUT_S: Final = 15
_MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
_MAX_TRIES: Final = 8
_MAX_PAUSE_S: Final = 30
_SIGNATURE_S: Final = 24 * 3600
_MAX_CONNECTIONS: Final = 16
_OK: Final = 200


class Answer(NamedTuple):
    """The fields of an answer. `tau` (ms) is by the vendor's clock, and no later than when the vendor looked.

    `asked_at` is when the request was sent, in ms by this machine's clock.
    """

    fields: dict[str, Any]
    tau: int
    asked_at: int


class GroupIds(NamedTuple):
    """A page of the app's groups. `total` counts all; `next` is None on the last page."""

    group_ids: list[str]
    total: int
    next: int | None


class RosterRow(NamedTuple):
    """A member as the vendor lists it; `joined_at` is in ms, `tau` if the answer has no time. `answer` is the row."""

    user_id: str
    joined_at: int
    role: str
    name_card: str
    answer: msgspec.Raw
    tau: int


class VendorGroup(NamedTuple):
    """A group as the vendor shows it. None is unknown; a `member_limit` of None is none.

    `roster` is None unless the answer has all members. `answer` is the answer without the members;
    `tau` and `asked_at` are as in Answer.
    """

    group_id: str
    app_id: int | None
    type: str
    texts: dict[str, str]
    owner: str
    custom_fields: dict[str, str]
    created_at: int | None
    member_count: int | None
    member_limit: int | None
    roster: list[RosterRow] | None
    answer: dict[str, Any]
    tau: int
    asked_at: int


class RosterPage(NamedTuple):
    """A page of a roster; `next` is None on the last one."""

    rows: list[RosterRow]
    member_count: int
    next: str | None
    tau: int
    asked_at: int


class RestClient:
    """Asks the vendor, in an asynchronous context.

    `calls` counts the answers by command and code: their `ErrorCode`, 0 for success, -1 for none that can be read.
    `transport` is for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        sdk_app_id: int,
        administrator: str,
        key: str,
        rate: float,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._sdk_app_id, self._administrator, self._key = sdk_app_id, administrator, key
        self.calls: dict[str, dict[str, int]] = {}
        self._transport = transport
        self._pace = Pace(rate)
        self._list_pace = Pace(min(rate, _LIST_RATE))
        self._slots = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._signature = ""
        self._signed_at = 0.0
        self.clock = VendorClock()

    async def __aenter__(self) -> Self:
        limits = httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS)
        self._client = await httpx2.AsyncClient(
            timeout=_TIMEOUT, limits=limits, trust_env=False, transport=self._transport
        ).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def list_groups(self, cursor: int) -> GroupIds:
        """Return a page of the app's groups; the first cursor is 0."""
        fields = (await self._call(_GROUPS, _LIST, {"Limit": _LIST_LIMIT, "Next": cursor})).fields
        group_ids = [item["GroupId"] for item in _items(fields, "GroupIdList")]
        return GroupIds(group_ids, int(fields.get("TotalCount", 0)), int(fields.get("Next") or 0) or None)

    async def groups(
        self, group_ids: Sequence[str], *, custom_fields: Iterable[str] | None = None
    ) -> dict[str, VendorGroup | Gone]:
        """Return groups by id, with their members where the answer has all of them. Groups without an answer lack.

        With `custom_fields`, only those are returned, and no members: such answers are small. Raises TooLarge.
        """
        body: dict[str, Any] = {"GroupIdList": list(group_ids)}
        if custom_fields is not None:
            body["ResponseFilter"] = {
                "GroupBaseInfoFilter": list(_BASE_FIELDS),
                "AppDefinedDataFilter_Group": sorted(custom_fields),
            }
        try:
            answer = await self._call(_GROUPS, "get_group_info", body)
        except Gone as gone:
            return dict.fromkeys(group_ids, gone) if len(group_ids) == 1 else {}
        found: dict[str, VendorGroup | Gone] = {}
        for item in _items(answer.fields, "GroupInfo"):
            code = int(item.get("ErrorCode", 0))
            if code == 0:
                found[item["GroupId"]] = _group(item, answer)
            elif code in GONE_CODES:
                found[item["GroupId"]] = Gone(f"{code} {item.get('ErrorInfo', '')}".strip(), answer.tau)
        return found

    async def roster(self, group_id: str) -> RosterPage:
        """Return a group's whole roster in one answer. Raises Gone, TooLarge and NotForType."""
        return await self._roster({"GroupId": group_id, "MemberInfoFilter": list(_MEMBER_FIELDS)})

    async def roster_page(self, group_id: str, cursor: str | None, *, is_community: bool) -> RosterPage:
        """Return a page of a roster; the first cursor is None. Raises Gone and NotForType."""
        body = {"GroupId": group_id, "MemberInfoFilter": list(_MEMBER_FIELDS), "Limit": _PAGE_LIMIT}
        if is_community:
            return await self._roster(body | {"Next": cursor or ""})
        offset = int(cursor or 0)
        page = await self._roster(body | {"Offset": offset})
        return page._replace(next=str(offset + len(page.rows)) if page.rows else None)

    async def absent(self, group_id: str, users: Sequence[str]) -> tuple[set[str], Answer]:
        """Return which of these users are no members, by the answer to a question about them by name.

        Raises Gone and NotForType.
        """
        answer = await self._call(_GROUPS, "get_role_in_group", {"GroupId": group_id, "User_Account": list(users)})
        roles = {item["Member_Account"]: str(item.get("Role")) for item in _items(answer.fields, "UserIdList")}
        return {user for user in users if roles.get(user) == "NotMember"}, answer

    async def attributes(self, group_id: str) -> tuple[dict[str, str], Answer]:
        """Return all attributes of a group. Raises Gone and NotForType."""
        answer = await self._call(_ATTRIBUTES, "get_group_attr", {"GroupId": group_id})
        items = _items(answer.fields, "GroupAttrAry")
        return {item["key"]: str(item.get("value") or "") for item in items}, answer

    async def _roster(self, body: dict[str, Any]) -> RosterPage:
        answer = await self._call(_GROUPS, "get_group_member_info", body)
        following = str(answer.fields.get("Next") or "")
        return RosterPage(
            _rows(answer.fields, answer.tau),
            int(answer.fields.get("MemberNum", 0)),
            None if following in ("", "0", body.get("Next")) else following,
            answer.tau,
            answer.asked_at,
        )

    async def _call(self, service: str, command: str, body: dict[str, Any]) -> Answer:
        """Ask, and ask again as the error codes say. Raises RestError."""
        pace = self._list_pace if command == _LIST else self._pace
        has_signed_again, failure = False, ""
        for attempt in range(_MAX_TRIES):
            await pace.turn()
            async with self._slots:
                asked_at = now_ms()
                fields, failure = await self._exchange(service, command, body, asked_at)
            code = int(fields.get("ErrorCode", 0)) if fields is not None else -1
            codes = self.calls.setdefault(command, {})
            codes[str(code)] = codes.get(str(code), 0) + 1
            if fields is not None and (code == 0 or (code in GONE_CODES and "GroupInfo" in fields)):
                pace.recover()
                return Answer(fields, self.clock.floor(asked_at), asked_at)
            failure = failure or f"{command} was answered {code} {(fields or {}).get('ErrorInfo', '')}".strip()
            action = Action.RETRY if fields is None else _action(code, failure, body, self.clock.floor(asked_at))
            if action is Action.SLOW_DOWN:
                pace.slow_down()
            elif action is Action.RETRY:
                await asyncio.sleep(min(2**attempt / 4, _MAX_PAUSE_S) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            elif action is Action.SIGN_AGAIN and not has_signed_again:
                has_signed_again, self._signature = True, ""
            else:
                raise Refused(f"{failure}: {remedy(code)}")
        raise Unavailable(f"{failure}, {_MAX_TRIES} times")

    async def _exchange(
        self, service: str, command: str, body: dict[str, Any], asked_at: int
    ) -> tuple[dict[str, Any] | None, str]:
        """Return the fields of the answer, or None and the reason why there is none. The URL is never logged."""
        query = {
            "sdkappid": str(self._sdk_app_id),
            "identifier": self._administrator,
            "usersig": self._sign(),
            "random": str(random.getrandbits(32)),
            "contenttype": "json",
        }
        url = f"{self._url}/v4/{service}/{command}"
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._client.stream("POST", url, params=query, content=msgspec.json.encode(body)) as response,
            ):
                if response.status_code != _OK:
                    return None, f"{command} was answered with status {response.status_code}"
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_ANSWER_BYTES:
                        return None, f"the answer to {command} is larger than {_MAX_ANSWER_BYTES} bytes"
        except (httpx2.HTTPError, TimeoutError) as error:
            return None, f"{command} was not answered ({type(error).__name__})"
        except httpx2.InvalidURL:
            raise Refused(f"PROJECTOR_REST_URL is {self._url!r}, which is no address") from None
        if (fields := _decode(bytes(content))) is None:
            return None, f"the answer to {command} is not a JSON object"
        self.clock.learn(response.headers.get("date"), asked_at=asked_at, answered_at=now_ms())
        return fields, ""

    def _sign(self) -> str:
        if not self._signature or time.monotonic() - self._signed_at > _SIGNATURE_S / 2:
            self._signature = user_sig(
                self._key, self._administrator, self._sdk_app_id, now_s=int(time.time()), expire_s=_SIGNATURE_S
            )
            self._signed_at = time.monotonic()
        return self._signature


def user_sig(key: str, identifier: str, sdk_app_id: int, *, now_s: int, expire_s: int) -> str:
    """Return a UserSig (TLSSigAPIv2), valid for `expire_s` seconds from `now_s`."""
    text = f"TLS.identifier:{identifier}\nTLS.sdkappid:{sdk_app_id}\nTLS.time:{now_s}\nTLS.expire:{expire_s}\n"
    digest = hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
    document = {
        "TLS.ver": "2.0",
        "TLS.identifier": identifier,
        "TLS.sdkappid": sdk_app_id,
        "TLS.expire": expire_s,
        "TLS.time": now_s,
        "TLS.sig": base64.b64encode(digest).decode(),
    }
    packed = base64.b64encode(zlib.compress(msgspec.json.encode(document))).decode()
    return packed.translate(str.maketrans("+/=", "*-_"))


def _action(code: int, failure: str, body: dict[str, Any], tau: int) -> Action:
    """Return what to do about a code. Raises what concerns the group or the size of the answer, not the app."""
    if code in GONE_CODES:
        raise Gone(failure, tau)
    if code == TOO_LARGE_CODE:
        raise TooLarge(failure)
    if code in NOT_FOR_TYPE_CODES and "GroupId" in body:
        raise NotForType(failure)
    return ACTIONS.get(code, Action.STOP)


def _decode(content: bytes) -> dict[str, Any] | None:
    """Decode a JSON object; lone surrogates, which cannot be stored, become U+FFFD, as in callbacks."""
    try:
        fields = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            text = json.dumps(json.loads(content), ensure_ascii=False)
            fields = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        except (ValueError, RecursionError):
            return None
    except RecursionError:
        return None
    return fields if isinstance(fields, dict) else None


def _items(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [item for item in fields.get(name) or () if isinstance(item, dict)]


def _rows(fields: dict[str, Any], tau: int) -> list[RosterRow]:
    return [
        RosterRow(
            item["Member_Account"],
            int(item["JoinTime"]) * 1_000 if item.get("JoinTime") else tau,
            str(item.get("Role") or "Member").strip(),
            str(item.get("NameCard") or ""),
            msgspec.Raw(msgspec.json.encode(item)),
            tau,
        )
        for item in _items(fields, "MemberList")
        if item.get("Member_Account")
    ]


def _group(item: dict[str, Any], answer: Answer) -> VendorGroup:
    rows, member_count = _rows(item, answer.tau), item.get("MemberNum")
    custom_fields = {pair["Key"]: str(pair.get("Value") or "") for pair in _items(item, "AppDefinedData")}
    created, limit = item.get("CreateTime"), int(item.get("MaxMemberNum") or 0)
    group_type = str(item.get("Type") or "")
    return VendorGroup(
        group_id=item["GroupId"],
        app_id=item.get("Appid"),
        type=group_type,
        texts={
            field: str(item.get(name) or "")
            for field, name in (
                ("name", "Name"),
                ("introduction", "Introduction"),
                ("notification", "Notification"),
                ("face_url", "FaceUrl"),
            )
        },
        owner=str(item.get("Owner_Account") or ""),
        custom_fields=custom_fields,
        created_at=int(created) * 1_000 if created else None,
        member_count=member_count,
        member_limit=limit if limit > 0 and group_type != WITHOUT_ROSTER else None,
        roster=rows if "MemberList" in item and len(rows) == member_count else None,
        answer={name: value for name, value in item.items() if name != "MemberList"},
        tau=answer.tau,
        asked_at=answer.asked_at,
    )
