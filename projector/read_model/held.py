"""Tables held in memory while whole streams are folded, and written in one go, in the order of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from projector.domain.membership import Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from projector.domain.fullness import Fullness
    from projector.domain.profile import Profile
    from projector.read_model import MemberRow, Roster, Tables

_Value = TypeVar("_Value")

MOST_MEMBERS: Final = 100_000
"""How many members' rows are held; a group that has more is written early and read back where need be."""


class HeldTables:
    """What projections read and write of `Tables`, for groups that have no rows in `tables` yet."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rosters: dict[str, Roster] = {}
        self._members: dict[str, dict[str, MemberRow]] = {}
        self._profiles: dict[str, Profile] = {}
        self._fullness: dict[str, Fullness] = {}
        self._written_early: set[str] = set()

    def rosters(self, group_ids: Iterable[str]) -> dict[str, Roster]:
        """See `Tables`."""
        return _known(self._rosters, group_ids)

    def members(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MemberRow]:
        """See `Tables`."""
        found, elsewhere = {}, []
        for key in keys:
            if row := self._members.get(key[0], {}).get(key[1]):
                found[key] = row
            elif key[0] in self._written_early:
                elsewhere.append(key)
        return found | self._tables.members(elsewhere) if elsewhere else found

    def present(self, group_id: str) -> Iterator[MemberRow]:
        """See `Tables`."""
        held = self._members.get(group_id, {})
        yield from [row for row in held.values() if row.standing is not Standing.OUT]
        if group_id in self._written_early:
            yield from (row for row in self._tables.present(group_id) if row.user_id not in held)

    def save_rosters(self, rosters: Mapping[str, Roster]) -> None:
        """See `Tables`."""
        self._rosters.update(rosters)

    def save_members(self, rows: Iterable[MemberRow]) -> None:
        """See `Tables`."""
        for row in rows:
            self._members.setdefault(row.group_id, {})[row.user_id] = row

    def profiles(self, group_ids: Iterable[str]) -> dict[str, Profile]:
        """See `Tables`."""
        return _known(self._profiles, group_ids)

    def save_profiles(self, profiles: Mapping[str, Profile]) -> None:
        """See `Tables`."""
        self._profiles.update(profiles)

    def fullness(self, group_ids: Iterable[str]) -> dict[str, Fullness]:
        """See `Tables`."""
        return _known(self._fullness, group_ids)

    def save_fullness(self, fullness: Mapping[str, Fullness]) -> None:
        """See `Tables`."""
        self._fullness.update(fullness)

    def groups(self) -> set[str]:
        """Return the groups of which anything is held."""
        return {*self._rosters, *self._members, *self._profiles, *self._fullness}

    def write(self, *, but: str | None = None) -> None:
        """Write what is held and let go of it; of the group that is not complete yet, only what is too much."""
        complete = self.groups() - {but}
        self._tables.save_rosters(_of(complete, self._rosters))
        self._tables.save_profiles(_of(complete, self._profiles))
        self._tables.save_fullness(_of(complete, self._fullness))
        if but is not None and len(self._members.get(but, ())) > MOST_MEMBERS:
            self._written_early.add(but)
            complete.add(but)
        self._tables.save_members(
            members[user_id] for members in _of(complete, self._members).values() for user_id in sorted(members)
        )
        self._let_go(complete, but)

    def drop(self) -> set[str]:
        """Let go of everything unwritten, and return the groups it was of."""
        lost = self.groups()
        self._let_go(lost, None)
        return lost

    def _let_go(self, group_ids: Iterable[str], but: str | None) -> None:
        for group_id in group_ids:
            self._members.pop(group_id, None)
            if group_id != but:
                self._rosters.pop(group_id, None)
                self._profiles.pop(group_id, None)
                self._fullness.pop(group_id, None)
        self._written_early &= {but}


def _known(held: Mapping[str, _Value], keys: Iterable[str]) -> dict[str, _Value]:
    return {key: held[key] for key in keys if key in held}


def _of(keys: Collection[str], held: Mapping[str, _Value]) -> dict[str, _Value]:
    return {key: value for key, value in held.items() if key in keys}
