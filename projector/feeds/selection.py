"""Which messages of a feed a reader wants."""

from __future__ import annotations

from typing import NamedTuple

from projector.event_store.notices import Notice
from projector.feeds.log import Message


class Selection(NamedTuple):
    """Messages about any of these groups and users, of any of these types; an empty set is all."""

    groups: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    def includes(self, message: Message) -> bool:
        """Tell whether a message is selected. Dismissals and resets pass the filters of users and types."""
        if self.groups and message.group_id not in self.groups:
            return False
        if message.concerns_all:
            return True
        return not (
            (self.users and self.users.isdisjoint(message.users))
            or (self.types and self.types.isdisjoint(message.types))
        )

    def includes_notice(self, notice: Notice) -> bool:
        return not (notice.kind == "group.reset" and self.groups and notice.subject not in self.groups)
