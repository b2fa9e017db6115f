"""The vendor's REST API over the fake's groups: its checks, its limits, its codes, and its answers."""

import json
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, ClassVar, Final, NamedTuple

from projector.simulator.vendor.groups import VendorGroup, VendorGroups, VendorMember, hash_key
from projector.simulator.vendor.user_sig import check_user_sig

_MAX_ANSWER_BYTES: Final = 1024 * 1024
_MAX_LISTED: Final = 10_000
_MAX_GROUPS: Final = 50
_MAX_USERS: Final = 500
_MAX_SPECIFIED: Final = 50
_LIST_INTERVAL_S: Final = 1.0
_NO_GROUP: Final = (10010, "this group does not exist")
_MEMBER_FIELDS: Final = ("Role", "JoinTime", "MsgSeq", "MsgFlag", "LastSendMsgTime", "ShutUpUntil", "NameCard")


class Vendor(NamedTuple):
    """The app that the fake serves, and how it behaves where the documentation leaves it open.

    `max_page` is the largest page of a roster: 200 by the text, 6000 by the table of fields. `rate` is in requests a
    second and command. `lag_ms` is how old the state is that answers show, `skew_ms` how far the vendor's clock is
    ahead.
    """

    sdk_app_id: int
    key: str
    administrator: str = "administrator"
    max_page: int = 200
    rate: float | None = 200
    list_interval_s: float = _LIST_INTERVAL_S
    lag_ms: int = 0
    skew_ms: int = 0
    has_error_info: bool = True
    newer_names: bool = False
    pads_roles: bool = False


class _Failure(Exception):
    def __init__(self, code: int, info: str = "") -> None:
        super().__init__(info)
        self.code, self.info = code, info


class RestApi:
    """Answers requests; `now_ms` is the true time."""

    def __init__(self, vendor: Vendor, groups: VendorGroups, now_ms: Callable[[], int]) -> None:
        self.vendor = vendor
        self._groups = groups
        self._now_ms = now_ms
        self._listed_at = float("-inf")
        self._buckets: dict[str, tuple[float, float]] = {}

    def clock_ms(self) -> int:
        """Return the time by the vendor's clock."""
        return self._now_ms() + self.vendor.skew_ms

    def answer(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Return the answer to a request; its status is 200, whatever the code."""
        try:
            command, fields = self._checked(method, path, query, body)
            answer = self._COMMANDS[command](self, fields)
            done = {"ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "", **answer}
            if len(encode(done)) > _MAX_ANSWER_BYTES:
                raise _Failure(10018, "response package size is too large")
        except _Failure as failure:
            done = {"ActionStatus": "FAIL", "ErrorCode": failure.code, "ErrorInfo": failure.info}
        if not self.vendor.has_error_info:
            done.pop("ErrorInfo")
        return done

    def _checked(
        self, method: str, path: str, query: Mapping[str, str], body: bytes
    ) -> tuple[tuple[str, str], dict[str, Any]]:
        _, version, *rest = path.split("/")
        if method != "POST" or version != "v4" or len(rest) != 2:
            raise _Failure(60009, "unsupported resource")
        vendor, command = self.vendor, (rest[0], rest[1])
        if query.get("contenttype") != "json" or not query.get("random", "").isdigit():
            raise _Failure(60004, "parameter missing in url")
        if query.get("sdkappid") != str(vendor.sdk_app_id):
            raise _Failure(70014, "sdkappid does not match")
        identifier = query.get("identifier", "")
        if code := check_user_sig(
            query.get("usersig", ""),
            identifier=identifier,
            sdk_app_id=vendor.sdk_app_id,
            key=vendor.key,
            now_s=self.clock_ms() // 1_000,
        ):
            raise _Failure(code, "UserSig is invalid")
        if identifier != vendor.administrator:
            raise _Failure(10007, "operator is not super manager")
        try:
            fields = json.loads(body)
        except ValueError:
            raise _Failure(60003, "request JSON parse error") from None
        if command not in self._COMMANDS:
            raise _Failure(10003, "unknown command")
        self._throttle(command[1])
        return command, fields

    def _throttle(self, command: str) -> None:
        now = time.monotonic()
        if command == "get_appid_group_list":
            if now - self._listed_at < self.vendor.list_interval_s:
                raise _Failure(10006, "operation too frequent")
            self._listed_at = now
        if self.vendor.rate:
            tokens, at = self._buckets.get(command, (self.vendor.rate, now))
            tokens = min(self.vendor.rate, tokens + (now - at) * self.vendor.rate) - 1
            self._buckets[command] = (max(tokens, 0), now)
            if tokens < 0:
                raise _Failure(60007, "REST API call frequency exceeds the limit")

    def _list(self, fields: dict[str, Any]) -> dict[str, Any]:
        limit = fields.get("Limit") or _MAX_LISTED
        if limit > _MAX_LISTED:
            raise _Failure(10004, "invalid Limit")
        group_ids, following = self._groups.page(fields.get("Next") or 0, limit)
        return {
            "TotalCount": self._groups.count(),
            "GroupIdList": [{"GroupId": group_id} for group_id in group_ids],
            "Next": following,
        }

    def _info(self, fields: dict[str, Any]) -> dict[str, Any]:
        group_ids = fields.get("GroupIdList") or []
        if not 0 < len(group_ids) <= _MAX_GROUPS:
            raise _Failure(10004, "invalid GroupIdList")
        return {"GroupInfo": [self._info_of(group_id, fields.get("ResponseFilter")) for group_id in group_ids]}

    def _info_of(self, group_id: str, wanted: dict[str, Any] | None) -> dict[str, Any]:
        group = self._find(group_id)
        if group is None:
            failure = {"ErrorCode": _NO_GROUP[0], "GroupId": group_id, "ErrorInfo": _NO_GROUP[1]}
            return {name: value for name, value in failure.items() if name != "ErrorInfo" or self.vendor.has_error_info}
        mute = "MuteAllMember" if self.vendor.newer_names else "ShutUpAllMember"
        base: dict[str, Any] = {
            "Appid": self.vendor.sdk_app_id,
            "ApplyJoinOption": "FreeAccess",
            "CreateTime": group.created_s,
            "InfoSeq": group.info_seq,
            "LastInfoTime": group.created_s,
            "LastMsgTime": 0,
            "MaxMemberNum": 0 if group.type == "AVChatRoom" else group.limit,
            "MemberNum": len(group.members),
            "NextMsgSeq": 1,
            "OnlineMemberNum": 0,
            "Owner_Account": group.owner,
            "Type": group.type,
            mute: "Off",
            **group.texts,
        }
        custom = group.custom_fields
        members = None if group.type == "AVChatRoom" else group.members
        if wanted is None:
            del base["InfoSeq"]
        else:
            base = {name: value for name, value in base.items() if name in wanted.get("GroupBaseInfoFilter", ())}
            custom = {key: custom[key] for key in wanted.get("AppDefinedDataFilter_Group", ()) if key in custom}
            members = members if "MemberInfoFilter" in wanted else None
        item: dict[str, Any] = {"GroupId": group_id, "ErrorCode": 0, **base}
        if custom:
            item["AppDefinedData"] = [{"Key": key, "Value": value} for key, value in custom.items()]
        if members is not None:
            shown = (wanted or {}).get("MemberInfoFilter", _MEMBER_FIELDS)
            most = self.vendor.max_page if group.type == "Community" else len(members)
            item["MemberList"] = [
                self._row(group, user, member, shown) for user, member in islice(members.items(), most)
            ]
        return item

    def _row(self, group: VendorGroup, user: str, member: VendorMember, wanted: Any) -> dict[str, Any]:
        role = "Owner" if user == group.owner else member.role
        row: dict[str, Any] = {
            "JoinTime": member.joined_s,
            "LastSendMsgTime": 0,
            "MsgFlag": "AcceptAndNotify",
            "MsgSeq": 0,
            "NameCard": member.name_card,
            "Role": f"{role} " if self.vendor.pads_roles and role == "Member" else role,
            "MuteUntil" if self.vendor.newer_names else "ShutUpUntil": 0,
        }
        return {"Member_Account": user} | {name: value for name, value in row.items() if name in wanted}

    def _roster(self, fields: dict[str, Any]) -> dict[str, Any]:
        group = self._readable(fields)
        limit, wanted = fields.get("Limit"), fields.get("MemberInfoFilter") or _MEMBER_FIELDS
        if limit is not None and not 0 < limit <= self.vendor.max_page:
            raise _Failure(10004, "invalid Limit")
        if group.type == "Community":
            return self._community_roster(group, fields.get("Next"), limit or self.vendor.max_page, wanted)
        users, offset = list(group.members), fields.get("Offset") or 0
        page = users[offset : offset + limit] if limit else users[offset:]
        return {
            "MemberNum": len(users),
            "MemberList": [self._row(group, user, group.members[user], wanted) for user in page],
        }

    def _community_roster(self, group: VendorGroup, cursor: str | None, limit: int, wanted: Any) -> dict[str, Any]:
        if cursor is None:
            raise _Failure(10004, "Next is missing")
        after = int(cursor or 0)
        order = sorted((hash_key(user), user) for user in group.members)
        start = bisect_right(order, (after, "\U0010ffff")) if after else 0
        page = order[start : start + limit]
        following = str(page[-1][0]) if start + limit < len(order) else ""
        return {
            "MemberNum": len(order),
            "MemberList": [self._row(group, user, group.members[user], wanted) for _, user in page],
            "Next": following,
        }

    def _specified(self, fields: dict[str, Any]) -> dict[str, Any]:
        group, users = self._readable(fields), fields.get("Member_List_Account") or []
        if not 0 < len(users) <= _MAX_SPECIFIED:
            raise _Failure(10005, "invalid Member_List_Account")
        wanted = fields.get("MemberInfoFilter") or _MEMBER_FIELDS
        rows = [self._row(group, user, group.members[user], wanted) for user in users if user in group.members]
        return {"GroupId": fields["GroupId"], "MemberList": rows}

    def _roles(self, fields: dict[str, Any]) -> dict[str, Any]:
        group, users = self._readable(fields), fields.get("User_Account") or []
        if not 0 < len(users) <= _MAX_USERS:
            raise _Failure(10005, "invalid User_Account")
        roles = {user: self._row(group, user, member, ("Role",))["Role"] for user, member in group.members.items()}
        return {"UserIdList": [{"Member_Account": user, "Role": roles.get(user, "NotMember")} for user in users]}

    def _attributes(self, fields: dict[str, Any]) -> dict[str, Any]:
        group = self._existing(fields)
        return {"GroupAttrAry": [{"key": key, "value": value} for key, value in group.attributes.items()]}

    def _readable(self, fields: dict[str, Any]) -> VendorGroup:
        group = self._existing(fields)
        if group.type == "AVChatRoom":
            raise _Failure(10007, "group type does not support this")
        return group

    def _existing(self, fields: dict[str, Any]) -> VendorGroup:
        if not fields.get("GroupId"):
            raise _Failure(10004, "GroupId is missing")
        if (group := self._find(fields["GroupId"])) is None:
            raise _Failure(*_NO_GROUP)
        return group

    def _find(self, group_id: str) -> VendorGroup | None:
        return self._groups.find(group_id, self._now_ms() - self.vendor.lag_ms if self.vendor.lag_ms else None)

    _COMMANDS: ClassVar[dict[tuple[str, str], Callable[["RestApi", dict[str, Any]], dict[str, Any]]]] = {
        ("group_open_http_svc", "get_appid_group_list"): _list,
        ("group_open_http_svc", "get_group_info"): _info,
        ("group_open_http_svc", "get_group_member_info"): _roster,
        ("group_open_http_svc", "get_specified_group_member_info"): _specified,
        ("group_open_http_svc", "get_role_in_group"): _roles,
        ("group_open_attr_http_svc", "get_group_attr"): _attributes,
    }


def encode(answer: dict[str, Any]) -> bytes:
    """Return an answer as the vendor writes it: compact, with sorted keys."""
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
