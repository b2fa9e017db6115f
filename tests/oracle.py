"""What the contract says, computed the dumbest possible way: every answer from the whole history, by scanning lists.

It shares no rule with `projector.domain`: it takes events as the facts they state and imports nothing of the folds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from projector.domain.events import Recorded

Fact = dict[str, Any]
Answer = dict[str, Any]
Writes = dict[str, tuple[int, str | None]]
"""By key: where in the story it was written last, and the value, None if it was deleted."""

PROFILE_FACTS = ("GroupCreated", "GroupProfileChanged", "GroupDismissed", "GroupObserved")
OBSERVATIONS = (
    *("GroupObserved", "GroupObservedAbsent", "MembersObserved", "MembersObservedAbsent"),
    *("AttributesObserved", "RosterObserved"),
)
SAME_STINT = 10_000
TEXTS = ("name", "introduction", "notification", "face_url")
BEFORE_EVERYTHING = -1

LARGEST_TEXT = 2_000
LARGEST_TYPE = 40
LARGEST_ID = 1_024
CUSTOM_FIELDS = {"most": 160, "largest_key": 64, "largest": 2_048}
ATTRIBUTES = {"most": 128, "largest_key": 1_024, "largest": 8_192}


def facts(history: Iterable[Recorded]) -> list[Fact]:
    """Return a history, in any order and with any repetition, as the set of facts it states."""
    by_position = {
        recorded.position: {**asdict(recorded.event), "what": recorded.event.TOPIC, "position": recorded.position}
        for recorded in history
    }
    return list(by_position.values())


def rfc3339(ms: int | None) -> str | None:
    if ms is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def everything(known: list[Fact]) -> dict[str, tuple[Answer, dict[str, Answer]]]:
    """Return every known group with its members by user id."""
    group_ids = sorted({fact["group_id"] for fact in known})
    return {
        group_id: (group, members(known, group_id)) for group_id in group_ids if (group := group_of(known, group_id))
    }


def group_of(known: list[Fact], group_id: str) -> Answer | None:
    """Return the group as `/v1/groups/{group_id}` shows it, None if it has no events."""
    story = timeline(known, group_id)
    if not story:
        return None
    opened, dismissed = newest(story, is_opening), newest(story, is_dismissal)
    gone = dismissed > opened
    life = story[floor_of(story) + 1 :]
    filled = newest(story, lambda fact: fact["what"] == "GroupFilled" or fact.get("is_full") is True)
    left = newest(story, lambda fact: is_report_of_exit(fact) or fact.get("is_full") is False)
    full = not gone and filled > left and filled > dismissed
    complete = any(is_creation(fact) or fact["what"] == "RosterObserved" for fact in life)
    limits = [fact["member_limit"] for fact in story[dismissed + 1 :] if fact.get("member_limit") is not None]
    count = len(members(known, group_id))
    return {
        "group_id": group_id,
        "type": unless_larger(LARGEST_TYPE, last_written(life, lambda fact: fact["group_type"] or None)),
        "status": "dismissed" if gone else "active",
        **{text: unless_larger(LARGEST_TEXT, last_written(life, profile_field(text))) for text in TEXTS},
        "owner": owner_of(story),
        "custom_fields": custom_fields(life),
        "attributes": attributes(life),
        "member_count": count,
        "member_limit": limits[-1] if limits else count if full and complete else None,
        "roster_complete": complete,
        "is_full": full,
        "full_at": rfc3339(story[filled]["occurred_at"]) if not gone and filled > dismissed else None,
        "created_at": rfc3339(created_at(life)),
        "dismissed_at": rfc3339(dismissed_at(story[opened + 1 :])) if gone else None,
        "updated_at": rfc3339(max(fact["occurred_at"] for fact in story)),
        "position": max(fact["position"] for fact in story),
        "verified_at": None,
    }


def members(known: list[Fact], group_id: str) -> dict[str, Answer]:
    """Return the members of a group by user id, each as `/v1/groups/{group_id}/members` shows it."""
    story = timeline(known, group_id)
    everyone = {user for fact in story for user in mentioned(fact)}
    return {user: member for user in sorted(everyone) if (member := member_of(story, user))}


def groups_of(known: list[Fact], user_id: str) -> list[Answer]:
    """Return a user's groups as `/v1/users/{user_id}/groups` shows them."""
    return [
        {"group_id": group_id, "role": members_by_id[user_id]["role"], "joined_at": members_by_id[user_id]["joined_at"]}
        for group_id, (_, members_by_id) in everything(known).items()
        if user_id in members_by_id
    ]


def knows_user(known: list[Fact], user_id: str) -> bool:
    """Tell whether any fact about a group names the user as somebody who is, was or may be in it."""
    return any(
        user_id in [*mentioned(fact), *(fact["members"] if is_exit(fact) else ())]
        for group_id in {fact["group_id"] for fact in known}
        for fact in timeline(known, group_id)
    )


def member_of(story: list[Fact], user: str) -> Answer | None:
    opened, dismissed, exited = newest(story, is_opening), newest(story, is_dismissal), newest_exit(story, user)
    joined = newest(story, lambda fact: user in joiners(fact))
    seen = newest(story, lambda fact: fact["what"] == "MembersObserved" and user in fact["members"])
    entered = max(joined, seen)
    if entered <= exited or entered <= dismissed or dismissed > opened:
        return None
    reported = story[joined] if joined > exited else None
    since = story[seen]["members"][user].joined_at if seen > exited else 0
    joining = reported if reported and reported["occurred_at"] >= since - SAME_STINT else None
    changes = [change for fact in story[entered:] if (change := own_change(fact, user))]
    role = last_written(changes, lambda change: change["role"])
    return {
        "user_id": user,
        "role": "Owner" if owner_of(story) == user else "Admin" if role == "Admin" else "Member",
        "name_card": unless_larger(LARGEST_TEXT, last_written(changes, lambda change: change["name_card"])),
        "joined_at": rfc3339(max(reported["occurred_at"] if reported else 0, since)),
        "join_type": joining and ("Created" if is_creation(joining) else joining["join_type"]),
        "operator": joining and unless_larger(LARGEST_ID, joining["operator"]),
    }


def own_change(fact: Fact, user: str) -> Fact | None:
    """Return the role and the name card that a fact gives a user; None for each that it leaves."""
    if fact["what"] == "MemberChanged" and fact["member"] == user:
        return fact
    if fact["what"] == "MembersObserved" and user in fact["members"]:
        seen = fact["members"][user]
        return {"role": seen.role, "name_card": seen.name_card}
    return None


def created_at(life: list[Fact]) -> int | None:
    creations = [fact["occurred_at"] for fact in life if is_creation(fact)]
    observed = [fact["created_at"] for fact in life if fact["what"] == "GroupObserved"]
    times = [*creations[-1:], *(time for time in observed[-1:] if time is not None)]
    return max(times) if times else None


def dismissed_at(since: list[Fact]) -> int:
    """Return the newest reported dismissal since the last life was opened, without one the oldest observed one."""
    reported = [fact["occurred_at"] for fact in since if fact["what"] == "GroupDismissed"]
    observed = [fact["occurred_at"] for fact in since if fact["what"] == "GroupObservedAbsent"]
    return reported[-1] if reported else observed[0]


def owner_of(story: list[Fact]) -> str | None:
    floor = floor_of(story)
    for place in range(len(story) - 1, floor, -1):
        owner = named_owner(story[place])
        if owner is not None:
            owner = unless_larger(LARGEST_ID, owner)
            return owner if owner and newest_exit(story, owner) < place else None
    return None


def custom_fields(life: list[Fact]) -> dict[str, str]:
    writes: Writes = {}
    for place, fact in enumerate(life):
        writes.update({key: (place, value) for key, value in fact.get("custom_fields", {}).items()})
        writes.update(dict.fromkeys(fact.get("custom_fields_gone", ()), (place, None)))
    return newest_values(writes, **CUSTOM_FIELDS)


def attributes(life: list[Fact]) -> dict[str, str]:
    writes: Writes = {}
    for place, fact in enumerate(life):
        if fact["what"] == "AttributesObserved":
            writes.update({key: (place, value) for key, value in fact["attributes"].items()})
            writes.update(dict.fromkeys(fact["gone"], (place, None)))
        if fact["what"] != "AttributesChanged":
            continue
        if fact["operation"] in ("set", "clear"):
            writes = {}
        if fact["operation"] in ("set", "modify"):
            writes.update({key: (place, value) for key, value in fact["attributes"].items()})
        if fact["operation"] == "delete":
            writes.update(dict.fromkeys(fact["attributes"], (place, None)))
    return newest_values(writes, **ATTRIBUTES)


def newest_values(writes: Writes, *, most: int, largest_key: int, largest: int) -> dict[str, str]:
    """Return the values of the keys written last, a deletion being a write too; of one event, the greater keys."""
    keys = [key for key in writes if len(key.encode()) <= largest_key]
    kept = sorted(keys, key=lambda key: (writes[key][0], key))[-most:]
    values = {key: unless_larger(largest, writes[key][1]) for key in kept}
    return {key: value for key, value in values.items() if value is not None}


def unless_larger(largest: int, value: str | None) -> str | None:
    return None if value is None or len(value.encode()) > largest else value


def timeline(known: list[Fact], group_id: str) -> list[Fact]:
    """Return the facts about the group itself, oldest first."""
    story = [
        fact
        for fact in known
        if fact["group_id"] == group_id and fact["topic_id"] is None and "Topic" not in fact["what"]
    ]
    return sorted(story, key=lambda fact: (fact["occurred_at"], fact["what"] not in OBSERVATIONS, fact["position"]))


def newest(story: list[Fact], matches: Callable[[Fact], bool]) -> int:
    """Return where in the story the newest such fact is, -1 if there is none."""
    return max((place for place, fact in enumerate(story) if matches(fact)), default=BEFORE_EVERYTHING)


def last_written(story: list[Fact], value_in: Callable[[Fact], str | None]) -> str | None:
    written = [value for fact in story if (value := value_in(fact)) is not None]
    return written[-1] if written else None


def profile_field(field: str) -> Callable[[Fact], str | None]:
    return lambda fact: fact[field] if fact["what"] in PROFILE_FACTS else None


def named_owner(fact: Fact) -> str | None:
    return fact["owner"] if fact["what"] in (*PROFILE_FACTS, "OwnerChanged") else None


def floor_of(story: list[Fact]) -> int:
    """Return where the last life begins: at the newest dismissal that is older than what opened it."""
    return newest(story[: max(newest(story, is_opening), 0)], is_dismissal)


def newest_exit(story: list[Fact], user: str) -> int:
    return newest(story, lambda fact: is_exit(fact) and user in fact["members"])


def is_exit(fact: Fact) -> bool:
    return fact["what"] in ("MembersLeft", "MembersObservedAbsent")


def is_report_of_exit(fact: Fact) -> bool:
    return fact["what"] == "MembersLeft" and len(fact["members"]) > 0


def is_opening(fact: Fact) -> bool:
    return fact["what"] in ("GroupCreated", "GroupObserved")


def is_creation(fact: Fact) -> bool:
    return fact["what"] == "GroupCreated"


def is_dismissal(fact: Fact) -> bool:
    return fact["what"] in ("GroupDismissed", "GroupObservedAbsent")


def joiners(fact: Fact) -> list[str]:
    if fact["what"] == "GroupCreated":
        return [*fact["members"], *([fact["owner"]] if fact["owner"] else [])]
    return list(fact["members"]) if fact["what"] == "MembersJoined" else []


def mentioned(fact: Fact) -> list[str]:
    observed = list(fact["members"]) if fact["what"] == "MembersObserved" else []
    return [*joiners(fact), *observed, *([fact["member"]] if fact["what"] == "MemberChanged" else [])]
