"""The event store on SQLite: a persistence module of the event-sourcing library.

`PERSISTENCE_MODULE=projector.event_store.sqlite` opens it with the library alone.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from projector.database.sqlite import SQLiteConnection, rfc3339, switch_to_wal
from projector.domain.events import Recorded
from projector.event_store import (
    ALL_GROUPS,
    Appended,
    Candidate,
    GroupRange,
    StoreUnavailable,
    group_events_view,
    ranges_between,
)
from projector.event_store.mapper import MAPPER_TOPIC, EventMapper, mapper_of
from projector.event_store.quarantine import Quarantine
from projector.event_store.sql import SQLEventStore
from projector.event_store.sqlite_recorder import LOCK_TIMEOUT_S, Factory, GroupRecorder, Row, unavailable
from projector.event_store.tables import require_tables
from projector.event_store.watching import in_background

STREAMS_BATCH_SIZE: Final = 2_000

SORTED_FROM: Final = 100_000
"""From so many events on, streams are read in one sorted scan: as fast in memory, and far faster from a disk."""

_POLL_S: Final = 0.1


class SQLiteEventStore(SQLEventStore):
    """`EventStore` in one SQLite file, in WAL mode, synced at every commit."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper) -> None:
        super().__init__(recorder, mapper, position="rowid")
        self._recorder = recorder

    def append(self, batch: Sequence[Candidate]) -> list[Appended]:
        with unavailable:
            while (appended := self._recorder.append(self._stored(batch), self._pseudonyms.through)) is None:
                self._load_pseudonyms()
            return appended

    def read(self, after: int, limit: int) -> list[Recorded]:
        with unavailable:
            rows = self._recorder.select("rowid > ? ORDER BY rowid LIMIT ?", (after, limit))
        return self._recorded(rows)

    def read_group(self, group_id: str, after_version: int, limit: int) -> list[Recorded]:
        condition = "originator_id = ? AND originator_version > ? ORDER BY originator_version LIMIT ?"
        with unavailable:
            rows = self._recorder.select(condition, (group_id, after_version, limit))
        return self._recorded(rows)

    def read_streams(self, through: int, groups: GroupRange = ALL_GROUPS) -> Iterator[list[Recorded]]:
        scan = self._recorder.scan_streams(through, groups, STREAMS_BATCH_SIZE)
        with unavailable:
            for rows in scan if through >= SORTED_FROM else self._looked_up_streams(through, groups):
                yield self._recorded(rows)

    def split(self, through: int, count: int) -> list[GroupRange]:
        with unavailable:
            return ranges_between(
                self._recorder.select_group_at(through * number // count) for number in range(1, count)
            )

    def head(self) -> int:
        with unavailable:
            return self._recorder.max_notification_id() or 0

    @contextmanager
    def watching(self, wake: Callable[[], None]) -> Iterator[None]:
        # A file notifies nobody; polling its data_version is cheap.
        with in_background(partial(_watch, self._recorder.datastore.pool.db_name, wake)):
            yield

    def close(self) -> None:
        self._recorder.datastore.close()

    def _looked_up_streams(self, through: int, groups: GroupRange) -> Iterator[list[Row]]:
        after = (groups.first, 0)
        while rows := self._recorder.select_streams(through, after, groups.end, STREAMS_BATCH_SIZE):
            yield rows
            after = rows[-1][1:3]


def open_sqlite(
    path: str, library_environment: Mapping[str, str], *, max_quarantined: int, read_only: bool = False
) -> tuple[SQLiteEventStore, Quarantine]:
    """Open the store in the SQLite file at `path`, and create what is missing unless it is `read_only`.

    `library_environment` carries the event-sourcing library's own settings: compressor, cipher and its key.

    Raises StoreUnavailable if the file cannot be opened, or is not such a store.
    """
    factory = Factory(
        {
            "MAPPER_TOPIC": MAPPER_TOPIC,
            **library_environment,
            "SQLITE_DBNAME": f"{Path(path).absolute().as_uri()}?mode=rw" if read_only else path,
            "SQLITE_LOCK_TIMEOUT": str(LOCK_TIMEOUT_S),
            "ORIGINATOR_ID_TYPE": "text",
        },
        read_only=read_only,
    )
    with unavailable:
        if not read_only:
            switch_to_wal(path)
        recorder = factory.application_recorder()
    assert isinstance(recorder, GroupRecorder)
    mapper = mapper_of(factory)
    if not read_only:
        with recorder.writing() as connection:
            connection.execute(group_events_view.for_sqlite(rfc3339) if mapper.is_plain else group_events_view.DROP)
    return SQLiteEventStore(recorder, mapper), Quarantine(recorder, mapper, max_quarantined)


def require_store(path: str) -> None:
    """Raise StoreUnavailable unless the file is an event store. Changes nothing, and creates no files beside it."""
    if not Path(path).is_file():
        raise StoreUnavailable(f"SQLite: unable to open database file: {path} is not a file")
    # Without a log nobody writes to the file. With `mode=ro` alone, SQLite would create a log, and leave it behind.
    mode = "ro" if Path(f"{path}-wal").exists() else "ro&immutable=1"
    uri = f"{Path(path).absolute().as_uri()}?mode={mode}"
    with unavailable, closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S)) as connection:
        require_tables(SQLiteConnection(connection), path)


def _watch(path: str, wake: Callable[[], None], stopping: threading.Event) -> None:
    """Call `wake` whenever the file has changed, until stopped."""
    last_version = None
    with closing(sqlite3.connect(path, uri=True, isolation_level=None)) as connection:
        while not stopping.wait(_POLL_S):
            try:
                version = connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                version = None
            if version is None or version != last_version:
                last_version = version
                wake()
