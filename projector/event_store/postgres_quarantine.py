"""The quarantine on PostgreSQL: a table beside the events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from projector.database.postgres import escape_nul, unescape_nul
from projector.event_store import Quarantined, QuarantineFull, digest
from projector.event_store.forgotten import UnreadableRequest, redacted_request
from projector.event_store.postgres_recorder import exclusive, pseudonyms, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from projector.event_store.mapper import EventMapper
    from projector.event_store.postgres_recorder import GroupRecorder


class PostgresQuarantine:
    """`Quarantine` in a table beside the events; bodies go through the same compressor and cipher."""

    def __init__(self, recorder: GroupRecorder, mapper: EventMapper, capacity: int) -> None:
        self._datastore = recorder.datastore
        self._mapper = mapper
        self._capacity = capacity

    def keep(self, *, body: bytes, reason: str, command: str | None, platform: str | None, received_at: int) -> int:
        with exclusive(self._datastore) as cursor:
            request = digest(command, body)
            self._require_room(cursor, request)
            told, kept = pseudonyms(cursor).redacted_request_of(UnreadableRequest((reason, command, platform), body))
            cursor.execute(
                "INSERT INTO quarantine (digest, received_at, times, reason, command, platform, body)"
                " VALUES (%s, %s, 1, %s, %s, %s, %s)"
                " ON CONFLICT (digest) DO UPDATE SET times = quarantine.times + 1 RETURNING id",
                (request, received_at, *map(escape_nul, told), self._mapper.seal(kept)),
            )
            ((quarantine_id,),) = cursor.fetchall()
            return int(quarantine_id)

    def drop(self, quarantine_id: int) -> None:
        rows(self._datastore, "DELETE FROM quarantine WHERE id = %s RETURNING id", (quarantine_id,))

    def redact(self, names: Mapping[str, str]) -> int:
        redacted = 0
        with exclusive(self._datastore) as cursor:
            for (entry_id,) in cursor.execute("SELECT id FROM quarantine").fetchall():
                question = "SELECT reason, command, platform, body FROM quarantine WHERE id = %s"
                ((*told, sealed),) = cursor.execute(question, (entry_id,)).fetchall()
                before = UnreadableRequest(tuple(map(unescape_nul, told)), self._mapper.unseal(bytes(sealed)))
                texts, body = after = redacted_request(before, names)
                if after != before:
                    cursor.execute(
                        "UPDATE quarantine SET reason = %s, command = %s, platform = %s, body = %s WHERE id = %s",
                        (*map(escape_nul, texts), self._mapper.seal(body), entry_id),
                    )
                    redacted += 1
        return redacted

    def waiting(self, after: int = 0, limit: int = 100) -> list[Quarantined]:
        return self._select("position IS NULL AND id > %s ORDER BY id LIMIT %s", (after, limit))

    def find(self, quarantine_id: int) -> Quarantined | None:
        return next(iter(self._select("id = %s", (quarantine_id,))), None)

    def release(self, quarantine_id: int, position: int) -> None:
        rows(
            self._datastore,
            "UPDATE quarantine SET position = %s WHERE id = %s RETURNING id",
            (position, quarantine_id),
        )

    def count(self) -> int:
        ((count,),) = rows(self._datastore, "SELECT COUNT(*) FROM quarantine WHERE position IS NULL", ())
        return int(count)

    def _require_room(self, cursor: psycopg.Cursor[Any], request: bytes) -> None:
        question = (
            "SELECT (SELECT COUNT(*) FROM quarantine WHERE position IS NULL),"
            " EXISTS (SELECT 1 FROM quarantine WHERE digest = %s)"
        )
        ((waiting, is_known),) = cursor.execute(question, (request,)).fetchall()
        if waiting >= self._capacity and not is_known:
            raise QuarantineFull(waiting)

    def _select(self, condition: str, arguments: tuple[int, ...]) -> list[Quarantined]:
        columns = "id, received_at, times, reason, command, platform, body, position"
        found = rows(self._datastore, f"SELECT {columns} FROM quarantine WHERE {condition}", arguments)
        entries = [Quarantined(*map(unescape_nul, row)) for row in found]
        return [self._mapper.unsealed(entry) for entry in entries]
