"""Nearly valid callbacks: recorded if a second implementation of the rules can read them, and refused otherwise.

`ROUNDS=300000 pytest tests/fuzzing/test_near_valid.py` makes a campaign of it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from projector.callbacks import FUTURE_TOLERANCE_MS, Unreadable, translate
from tests.processes.campaign import rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from projector.domain.events import Event

NOW = 1_700_000_000_000
MAX_ID_BYTES = 1024

texts = st.sampled_from(["", "x", "ann", "Public", "\u0000", "\u4e2d" * 3, " ", "0", "null"])
ids = st.sampled_from(["ann", "bob", "@TGS#1", "a/b", "\u4e2d", "x" * MAX_ID_BYTES])
wrong_ids = st.sampled_from(["", "x" * (MAX_ID_BYTES + 1), "\u4e2d" * 342])
anything = st.sampled_from([None, True, False, 0, 1, -1, 1.5, [], {}, [None], [1], [""], {"a": "b"}, [{"x": 1}]])
accounts = st.lists(ids.map(lambda account: {"Member_Account": account}), max_size=3)
wrong_accounts = st.sampled_from(
    [["ann"], [{}], [{"Member_Account": 1}], [{"Member_Account": ""}], {"Member_Account": "ann"}, [[]], "ann"]
)
pairs = st.lists(st.fixed_dictionaries({"Key": texts, "Value": texts}), max_size=2)
attributes = st.lists(
    st.fixed_dictionaries({"key": texts}, optional={"value": texts | st.none(), "more": anything}), max_size=2
)
times = st.sampled_from([NOW, str(NOW), NOW // 1000, 0, "", "0", 1, NOW + FUTURE_TOLERANCE_MS, 10**25, "9" * 20])
wrong_times = st.sampled_from([-1, "-1", "x", 1.0, True, [], {}, "9" * 21, " 1"])

COMMON = {"GroupId": ids, "EventTime": times, "Type": texts, "Operator_Account": texts, "TopicId": texts}
PROFILE = {
    **dict.fromkeys(("Name", "Introduction", "Notification", "FaceUrl"), texts),
    "Owner_Account": ids | st.just(""),
    "UserDefinedDataList": pairs,
    "MemberList": accounts,
}
FIELDS: dict[str, dict[str, Any]] = {
    "CreateGroup": PROFILE,
    "NewMemberJoin": {"NewMemberList": accounts, "JoinType": texts},
    "MemberExit": {"ExitMemberList": accounts, "ExitType": texts},
    "GroupFull": {},
    "GroupDestroyed": PROFILE,
    "GroupInfoChanged": PROFILE,
    "MemberFieldChanged": {"Member_Account": ids, "Modified_Account": ids, "Role": texts, "NameCard": texts},
    "ChangeGroupOwner": {"NewOwner_Account": ids, "OldOwner_Account": texts},
    "GroupAttrChanged": {"OptionType": st.sampled_from(["set", "Modify", "CLEAR", "delete"]), "GroupAttr": attributes},
    "CreateTopic": {},
    "TopicDestroyed": {"TopicIdList": st.lists(texts, max_size=2) | texts},
    "TopicInfoChanged": {},
}
WRONG = {"EventTime": wrong_times, "MemberList": wrong_accounts, "NewMemberList": wrong_accounts}
WRONG |= dict.fromkeys(("GroupId", "Member_Account", "NewOwner_Account"), wrong_ids) | {
    "ExitMemberList": wrong_accounts
}


@st.composite
def near_valid(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A callback of which a few fields, if any, are missing, null, strange or wrong."""
    command = draw(st.sampled_from(sorted(FIELDS)))
    fields = {**COMMON, **FIELDS[command]}
    body = draw(st.fixed_dictionaries(fields))
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=2)):
        how = draw(st.sampled_from(["gone", "null", "wrong", "anything"]))
        if how == "gone":
            body.pop(name, None)
        else:
            body[name] = None if how == "null" else draw(WRONG.get(name, anything) if how == "wrong" else anything)
    return command, body


def is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_ID_BYTES


def are_accounts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(account, dict) and is_id(account.get("Member_Account")) for account in value
    )


def are_pairs(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(
            isinstance(pair, dict) and all(isinstance(pair.get(key), str) for key in ("Key", "Value")) for pair in value
        )
    )


def are_attributes(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(
            isinstance(pair, dict) and isinstance(pair.get("key"), str) and is_text(pair.get("value")) for pair in value
        )
    )


def is_time(value: Any) -> bool:
    if isinstance(value, str):
        return value == "" or (value.isdigit() and value.isascii() and len(value) <= 20)
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def is_profile(body: dict[str, Any]) -> bool:
    named = all(is_text(body.get(name)) for name in ("Name", "Introduction", "Notification", "FaceUrl"))
    owner, members = body.get("Owner_Account"), body.get("MemberList")
    return (
        named
        and (owner in (None, "") or is_id(owner))
        and are_pairs(body.get("UserDefinedDataList"))
        and (members is None or (isinstance(members, list) and all(map(has_text_account, members))))
    )


def has_text_account(member: Any) -> bool:
    return isinstance(member, dict) and isinstance(member.get("Member_Account"), str)


CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "CreateGroup": lambda body: (
        is_profile(body) and (body.get("MemberList") is None or are_accounts(body["MemberList"]))
    ),
    "NewMemberJoin": lambda body: are_accounts(body.get("NewMemberList")) and is_text(body.get("JoinType")),
    "MemberExit": lambda body: are_accounts(body.get("ExitMemberList")) and is_text(body.get("ExitType")),
    "GroupDestroyed": is_profile,
    "GroupInfoChanged": is_profile,
    "MemberFieldChanged": lambda body: (
        all(is_text(body.get(name)) for name in ("Member_Account", "Modified_Account", "Role", "NameCard"))
        and is_id(body.get("Member_Account") or body.get("Modified_Account"))
    ),
    "ChangeGroupOwner": lambda body: (
        (body.get("NewOwner_Account") == "" or is_id(body.get("NewOwner_Account")))
        and is_text(body.get("OldOwner_Account"))
    ),
    "GroupAttrChanged": lambda body: (
        str(body.get("OptionType")).lower() in ("set", "modify", "clear", "delete")
        and are_attributes(body.get("GroupAttr"))
    ),
    "TopicDestroyed": lambda body: (
        is_text(body.get("TopicIdList"))
        or (isinstance(body["TopicIdList"], list) and all(isinstance(topic, str) for topic in body["TopicIdList"]))
    ),
}


def is_readable(command: str, body: dict[str, Any]) -> bool:
    """Tell whether a callback is as the vendor documents it, by rules that share no code with the translation."""
    common = is_id(body.get("GroupId")) and is_time(body.get("EventTime"))
    texts_there = all(is_text(body.get(name)) for name in ("Type", "Operator_Account", "TopicId"))
    return common and texts_there and CHECKS.get(command, lambda _: True)(body)


def members_of(command: str, body: dict[str, Any]) -> tuple[str, ...] | None:
    field = {"CreateGroup": "MemberList", "NewMemberJoin": "NewMemberList", "MemberExit": "ExitMemberList"}.get(command)
    return None if field is None else tuple(account["Member_Account"] for account in body.get(field) or ())


def recorded(command: str, raw: bytes) -> Event | None:
    try:
        return translate(f"Group.CallbackAfter{command}", raw, platform=None, received_at=NOW).event
    except Unreadable:
        return None


@settings(max_examples=rounds(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(near_valid())
def test_readable_callbacks_are_recorded_as_sent_and_all_others_are_refused(sent: tuple[str, dict[str, Any]]) -> None:
    command, body = sent
    raw = json.dumps(body).encode()
    readable = is_readable(command, body)
    event("readable" if readable else "not readable")
    translated = recorded(command, raw)
    assert (translated is not None) == readable
    if translated is None:
        return
    assert translated.callback.encode() == raw
    assert (translated.group_id, translated.operator) == (body["GroupId"], body.get("Operator_Account") or None)
    assert getattr(translated, "members", None) == members_of(command, body)
    assert translated.occurred_at <= NOW + FUTURE_TOLERANCE_MS
