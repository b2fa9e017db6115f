"""Readings: what the vendor's answers show of a group, under the names that the mirror knows users by."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from projector.clock import now_ms
from projector.domain.events import AttributesObserved, GroupObserved, MembersObserved, ObservedMember
from projector.domain.limits import MAX_ID_BYTES, utf8_length
from projector.event_store.pseudonyms import Pseudonyms
from projector.reconciliation.rest_client import (
    COMMUNITY,
    MAX_GROUPS,
    WITHOUT_ROSTER,
    RestClient,
    RosterRow,
    VendorGroup,
)
from projector.reconciliation.rest_errors import Gone, NotForType, TooLarge

_PLACEHOLDER: Final = "@TLS#"
"""Begins what the vendor shows in place of accounts that it does not find."""


class Reading(msgspec.Struct, frozen=True):
    """A group as the vendor showed it.

    `group` has all its values and `attributes` all its attributes, None if they cannot be read. `rows` are the members
    that were listed; all of them, in one answer or several, if the roster `is_complete`. A group that is `gone` has
    the vendor's words for it, and the moment (tau) of that answer.
    """

    group_id: str
    group: GroupObserved | None = None
    members: dict[str, ObservedMember] = {}
    rows: dict[str, RosterRow] = {}
    is_complete: bool = False
    is_one_answer: bool = False
    attributes: AttributesObserved | None = None
    gone: str | None = None
    gone_at: int = 0
    app_id: int | None = None


class Reader:
    """Reads groups, with as few requests as their sizes allow.

    `custom_fields` returns the keys that the mirror knows of a group: a group too large to be shown whole shows only
    fields that are named.
    """

    def __init__(
        self, client: RestClient, pseudonyms: Pseudonyms, custom_fields: Callable[[str], Iterable[str]]
    ) -> None:
        self._client = client
        self._pseudonyms = pseudonyms
        self._custom_fields = custom_fields
        self._paging = asyncio.Lock()

    async def read(self, group_ids: Sequence[str]) -> list[Reading]:
        """Read at most MAX_GROUPS groups. Groups of which the vendor says nothing lack. Raises RestError."""
        assert len(group_ids) <= MAX_GROUPS
        found = await self._infos(group_ids)
        return await asyncio.gather(*(self._whole(group_id, group) for group_id, group in found.items()))

    async def _infos(self, group_ids: Sequence[str]) -> dict[str, VendorGroup | Gone]:
        try:
            return await self._client.groups(group_ids)
        except TooLarge:
            if len(group_ids) == 1:
                return await self._client.groups(group_ids, custom_fields=self._custom_fields(group_ids[0]))
        middle = len(group_ids) // 2
        first, second = await asyncio.gather(self._infos(group_ids[:middle]), self._infos(group_ids[middle:]))
        return first | second

    async def _whole(self, group_id: str, group: VendorGroup | Gone) -> Reading:
        if isinstance(group, Gone):
            return Reading(group_id, gone=str(group), gone_at=group.tau)
        try:
            rows, is_complete, is_one_answer = await self._roster(group)
            attributes = await self._attributes(group)
        except Gone as gone:
            return Reading(group_id, gone=str(gone), gone_at=gone.tau)
        named = [row for row in rows if _is_account(row.user_id)]
        pseudonyms = self._pseudonyms.of({row.user_id for row in named})
        members = {row.user_id: _member(row) for row in named}
        seen = MembersObserved(group_id=group_id, occurred_at=0, recorded_at=0, members=members)
        return Reading(
            group_id,
            self._redacted_group(group, len(named) if is_complete else group.member_count),
            dict(self._pseudonyms.redacted(seen).members),  # type: ignore[attr-defined]
            {pseudonyms.get(row.user_id, row.user_id): row for row in named},
            is_complete,
            is_one_answer,
            attributes,
            app_id=group.app_id,
        )

    async def _roster(self, group: VendorGroup) -> tuple[list[RosterRow], bool, bool]:
        """Return the members, whether they are all, and whether they are from one answer."""
        if group.type == WITHOUT_ROSTER:
            return [], False, False
        if group.roster is not None:
            return group.roster, True, True
        is_community = group.type == COMMUNITY
        if not is_community:
            try:
                page = await self._client.roster(group.group_id)
            except TooLarge:
                pass
            except NotForType:
                return [], False, False
            else:
                return page.rows, page.next is None and len(page.rows) == page.member_count, True
        async with self._paging:  # one large roster at a time is held in memory
            return await self._pages(group.group_id, is_community=is_community)

    async def _pages(self, group_id: str, *, is_community: bool) -> tuple[list[RosterRow], bool, bool]:
        rows: dict[str, RosterRow] = {}
        cursor, cursors = None, set[str]()
        while True:
            page = await self._client.roster_page(group_id, cursor, is_community=is_community)
            rows |= {row.user_id: row for row in page.rows}
            if (cursor := page.next) is None or cursor in cursors:
                return [*rows.values()], len(rows) == page.member_count, False
            cursors.add(cursor)

    async def _attributes(self, group: VendorGroup) -> AttributesObserved | None:
        try:
            attributes, answer = await self._client.attributes(group.group_id)
        except NotForType:
            return None
        event = AttributesObserved(
            group_id=group.group_id,
            occurred_at=answer.tau,
            recorded_at=now_ms(),
            asked_at=answer.asked_at,
            attributes=attributes,
            callback=msgspec.json.encode({"GroupAttrAry": answer.fields.get("GroupAttrAry")}).decode(),
        )
        redacted = self._pseudonyms.redacted(event)
        assert isinstance(redacted, AttributesObserved)
        return redacted

    def _redacted_group(self, group: VendorGroup, member_count: int | None) -> GroupObserved:
        limit = group.member_limit
        event = GroupObserved(
            group_id=group.group_id,
            occurred_at=group.tau,
            recorded_at=now_ms(),
            asked_at=group.asked_at,
            group_type=group.type or None,
            owner=group.owner if _is_account(group.owner) else "",
            custom_fields=group.custom_fields,
            created_at=group.created_at,
            member_limit=limit,
            is_full=None if limit is None or member_count is None else member_count >= limit,
            callback=msgspec.json.encode(group.answer).decode(),
        )
        redacted = self._pseudonyms.redacted(replace(event, **group.texts))
        assert isinstance(redacted, GroupObserved)
        return redacted


def _member(row: RosterRow) -> ObservedMember:
    return ObservedMember(row.joined_at, None if row.role == "Member" else row.role, row.name_card or None)


def _is_account(user_id: str) -> bool:
    return bool(user_id) and not user_id.startswith(_PLACEHOLDER) and utf8_length(user_id) <= MAX_ID_BYTES
