"""A follower of the changes feed, as simple as its documentation allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Group = dict[str, Any]
    Roster = dict[str, dict[str, Any]]
    State = dict[str, tuple[Group, Roster]]

NOT_KEPT = ("position", "updated_at", "verified_at")


class Follower:
    """Keeps every group and its members. `read` returns both, or None, for a group at a position."""

    def __init__(self, read: Callable[[str, int], tuple[Group, Roster] | None]) -> None:
        self._read = read
        self.groups: State = {}

    def apply(self, message: dict[str, Any]) -> None:
        """Apply a message or a notice; a second time changes nothing."""
        if message.get("type") == "group.reset" or any(
            change["type"] == "group.reset" for change in message.get("changes", ())
        ):
            self._read_again(message["group_id"], message["position"])
            return
        if "changes" not in message:
            return
        group, roster = self.groups.setdefault(message["group_id"], ({}, {}))
        for change in message["changes"]:
            what, _, how = change["type"].partition(".")
            if what == "member":
                roster.pop(change["user_id"], None)
                if how != "left":
                    roster[change["user_id"]] = change["after"]
            elif how in ("created", "dismissed"):
                group.clear()
                group |= change["after"]
                roster.clear()
            elif how == "updated":
                group[change["field"]] = change["after"]
        group |= {"member_count": message["member_count"], "is_full": message["is_full"]}

    def _read_again(self, group_id: str, position: int) -> None:
        self.groups.pop(group_id, None)
        if state := self._read(group_id, position):
            self.groups[group_id] = state


def kept(groups: State) -> State:
    """Return the state without what followers do not keep."""
    return {
        group_id: ({name: value for name, value in group.items() if name not in NOT_KEPT}, roster)
        for group_id, (group, roster) in groups.items()
    }
