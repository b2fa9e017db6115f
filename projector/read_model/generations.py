"""Generations: builds of the read model. One is live, one is the previous one, one may be under construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from projector.read_model import DraftReadModel, NoReadModel, ReadModel
from projector.read_model.schema import SCHEMA_VERSION


class RebuildProgress(NamedTuple):
    """How far a rebuild has come: `done` of `total` events in this phase; a `total` of 0 is unknown."""

    phase: str
    done: int
    total: int


MISSING: Final = "there is no read model yet; run `projector replay` to build it"
STARTING: Final = RebuildProgress("starting", 0, 0)


class Generation(Protocol):
    """A build of the read model other than the live one. All methods raise ReadModelUnavailable."""

    @property
    def name(self) -> str: ...

    def shard(self, number: int) -> Generation:
        """Return a generation that another process may fill, to be appended to this one; numbers start at 1."""

    def create(self, versions: Mapping[str, int], forgotten_through: int) -> DraftReadModel:
        """Create it, empty, for projections of these versions.

        It is recorded that it names the accounts of forgettings up to `forgotten_through` by their pseudonyms.
        """

    def open(self) -> ReadModel:
        """Open it after its draft is finished."""

    def promote(self) -> None:
        """Make it live, and the live one the previous one, in one step."""


class Generations(Protocol):
    """All generations of one read model. All methods raise ReadModelUnavailable."""

    def live(self, *, timeout_s: float = 1) -> ReadModel:
        """Return the live read model, looked up again for each transaction; `timeout_s` limits the wait for locks."""

    def has_worker(self) -> bool:
        """Return whether any process has the right to project into the live read model."""

    def begin_rebuild(self, on_wait: Callable[[], None] = ...) -> AbstractContextManager[Generation]:
        """Hold the right to rebuild, and give a new generation, which is deleted at the end unless it was promoted.

        If another rebuild is under way, call `on_wait` and wait for it. Remains of interrupted rebuilds are deleted.
        """

    def previous(self) -> Generation | None:
        """Return the previous generation, if any. Requires the right to rebuild."""

    def drop_previous(self) -> None:
        """Delete the previous generation when the rebuild ends, and those of earlier schema versions at once.

        Requires the right to rebuild.
        """

    def report_progress(self, progress: RebuildProgress) -> None:
        """Publish the progress to all processes. Requires the right to rebuild."""

    def rebuild_progress(self) -> RebuildProgress | None:
        """Return the progress of a rebuild under way in any process, None if there is none."""


def require_schema(version: int) -> None:
    """Raise NoReadModel unless this is the schema version of this code."""
    if version != SCHEMA_VERSION:
        raise NoReadModel("the read model has another schema version; run `projector replay` to rebuild it")
