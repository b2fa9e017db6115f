"""Events that name users as a read model knows them, whatever the history has come to call them."""

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from projector.domain.events import Recorded
from projector.domain.redaction import redact
from projector.event_store import ALL_GROUPS, EventReader, EventStore, GroupRange


class RenamedEvents(EventReader):
    """The events of a store, for one read model. `forgotten_through` returns the newest forgetting it was built with.

    The read model knows the accounts of later forgettings by their ids, the others by their pseudonyms; while a
    forgetting is under way, stored events may have either. Create this while the read model is live or being built.
    """

    def __init__(self, store: EventStore, forgotten_through: Callable[[], int]) -> None:
        self._store = store
        self._forgotten_through = forgotten_through
        self._names: dict[str, str] = {}
        self._learn_names()

    def read(self, after: int, limit: int) -> list[Recorded]:
        return self._learn_and_rename(self._store.read(after, limit))

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        return self._learn_and_rename(self._store.read_group(group_id, after_version, limit))

    def read_streams(self, through: int, groups: GroupRange = ALL_GROUPS) -> Iterator[list[Recorded]]:
        return map(self._learn_and_rename, self._store.read_streams(through, groups))

    def rename_already_read(self, events: list[Recorded]) -> list[Recorded]:
        """Return events that were read before this object was created, renamed."""
        if not self._names:
            return events
        return [replace(recorded, event=redact(recorded.event, self._names)) for recorded in events]

    def _learn_and_rename(self, events: list[Recorded]) -> list[Recorded]:
        self._learn_names()
        return self.rename_already_read(events)

    def _learn_names(self) -> None:
        # Names are kept: events may have been read before a forgetting was finished, and be renamed after it.
        forgettings = self._store.forgotten.unfinished()
        through = self._forgotten_through() if forgettings else 0
        for forgetting in forgettings:
            if forgetting.id <= through:
                self._names[forgetting.account] = forgetting.pseudonym
            else:
                self._names[forgetting.pseudonym] = forgetting.account
