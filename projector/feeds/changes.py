"""What events change, folded on read; groups that were folded lately are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from projector.domain import membership
from projector.domain.events import Recorded
from projector.feeds.folded_group import Difference, FoldedGroup, Past

MAX_WEIGHT: Final = 50_000
"""Pieces of evidence kept, of some 300 bytes each."""


class Changes:
    """Folds consecutive events of all groups. Methods raise StoreUnavailable and ReadModelUnavailable."""

    def __init__(self, max_weight: int = MAX_WEIGHT) -> None:
        self._max_weight = max_weight
        self._weight = 0
        self._groups: OrderedDict[tuple[str, int], FoldedGroup] = OrderedDict()
        """By group and version, so that readers at different places do not undo each other's work."""

    def clear(self) -> None:
        """Drop all groups."""
        self._groups.clear()
        self._weight = 0

    def fold(self, past: Past, events: Sequence[Recorded]) -> dict[int, Difference]:
        """Return what consecutive events of the whole history changed, by position."""
        by_group: dict[str, list[Recorded]] = {}
        for recorded in events:
            by_group.setdefault(recorded.event.group_id, []).append(recorded)
        differences: dict[int, Difference] = {}
        for group_id, of_group in by_group.items():
            for difference in self._fold_group(past, group_id, of_group):
                differences[difference.recorded.position] = difference
        return differences

    def _fold_group(self, past: Past, group_id: str, events: Sequence[Recorded]) -> list[Difference]:
        position = events[0].position - 1
        group = self._take(past, group_id, events[0])
        group.load(past, (user for recorded in events for user in membership.users(recorded.event)), position)
        folded = [group.fold(past, recorded) for recorded in events]
        self._keep(group_id, events[-1].version, group)
        return [difference for difference in folded if difference]

    def _take(self, past: Past, group_id: str, first: Recorded) -> FoldedGroup:
        if kept := self._groups.pop((group_id, first.version - 1), None):
            self._weight -= kept.weight
            return kept
        return FoldedGroup(group_id, past.group(group_id, first.position - 1) if first.version != 1 else None)

    def _keep(self, group_id: str, version: int, group: FoldedGroup) -> None:
        if replaced := self._groups.pop((group_id, version), None):
            self._weight -= replaced.weight
        self._groups[group_id, version] = group
        self._weight += group.weight
        while self._weight > self._max_weight:
            _, oldest = self._groups.popitem(last=False)
            self._weight -= oldest.weight
