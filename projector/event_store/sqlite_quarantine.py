"""The quarantine on SQLite: a table beside the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.event_store import Quarantined, QuarantineFull, digest
from projector.event_store.forgotten import UnreadableRequest, redacted_request
from projector.event_store.sqlite_recorder import pseudonyms, unavailable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from projector.event_store.mapper import EventMapper
    from projector.event_store.sqlite_recorder import GroupRecorder


class SQLiteQuarantine:
    """`Quarantine` in a table beside the events; bodies go through the same compressor and cipher."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper, capacity: int) -> None:
        self._recorder = recorder
        self._mapper = mapper
        self._capacity = capacity

    def keep(self, *, body: bytes, reason: str, command: str | None, platform: str | None, received_at: int) -> int:
        with unavailable(), self._recorder.writing() as cursor:
            request = digest(command, body)
            self._require_room(cursor, request)
            told, kept = pseudonyms(cursor).redacted_request_of(UnreadableRequest((reason, command, platform), body))
            cursor.execute(
                "INSERT INTO quarantine (digest, received_at, times, reason, command, platform, body)"
                " VALUES (?, ?, 1, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET times = times + 1 RETURNING id",
                (request, received_at, *told, self._mapper.seal(kept)),
            )
            return int(cursor.fetchone()[0])

    def drop(self, quarantine_id: int) -> None:
        with unavailable(), self._recorder.writing() as cursor:
            cursor.execute("DELETE FROM quarantine WHERE id = ?", (quarantine_id,))

    def redact(self, names: Mapping[str, str]) -> int:
        redacted = 0
        with unavailable():
            with self._recorder.writing() as cursor:
                for (entry_id,) in cursor.execute("SELECT id FROM quarantine").fetchall():
                    question = "SELECT reason, command, platform, body FROM quarantine WHERE id = ?"
                    *told, sealed = cursor.execute(question, (entry_id,)).fetchone()
                    before = UnreadableRequest(tuple(told), self._mapper.unseal(sealed))
                    texts, body = after = redacted_request(before, names)
                    if after != before:
                        cursor.execute(
                            "UPDATE quarantine SET reason = ?, command = ?, platform = ?, body = ? WHERE id = ?",
                            (*texts, self._mapper.seal(body), entry_id),
                        )
                        redacted += 1
            self._recorder.empty_log()
        return redacted

    def waiting(self, after: int = 0, limit: int = 100) -> list[Quarantined]:
        return self._select("position IS NULL AND id > ? ORDER BY id LIMIT ?", (after, limit))

    def find(self, quarantine_id: int) -> Quarantined | None:
        return next(iter(self._select("id = ?", (quarantine_id,))), None)

    def release(self, quarantine_id: int, position: int) -> None:
        with unavailable(), self._recorder.writing() as cursor:
            cursor.execute("UPDATE quarantine SET position = ? WHERE id = ?", (position, quarantine_id))

    def count(self) -> int:
        with unavailable(), self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute("SELECT COUNT(*) FROM quarantine WHERE position IS NULL")
            return int(cursor.fetchone()[0])

    def _require_room(self, cursor: sqlite3.Cursor, request: bytes) -> None:
        waiting, is_known = cursor.execute(
            "SELECT (SELECT COUNT(*) FROM quarantine WHERE position IS NULL),"
            " EXISTS (SELECT 1 FROM quarantine WHERE digest = ?)",
            (request,),
        ).fetchone()
        if waiting >= self._capacity and not is_known:
            raise QuarantineFull(waiting)

    def _select(self, condition: str, arguments: tuple[int, ...]) -> list[Quarantined]:
        columns = "id, received_at, times, reason, command, platform, body, position"
        with unavailable(), self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute(f"SELECT {columns} FROM quarantine WHERE {condition}", arguments)
            rows = [Quarantined(*row) for row in cursor.fetchall()]
        return [self._mapper.unsealed(row) for row in rows]
