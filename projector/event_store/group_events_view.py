"""The view `group_events` of the history, for people and other programs: by position, and without bodies.

There is none where a compressor or a cipher hides the events from SQL.
"""

from collections.abc import Callable
from typing import Final

DROP: Final = "DROP VIEW IF EXISTS group_events"

# SQLite's functions read JSON; PostgreSQL's refuse U+0000 anywhere in it. Inside values, quotation marks are escaped.
_SQLITE_TIMES: Final = {name: f"json_extract(state, '$.{name}')" for name in ("occurred_at", "recorded_at")}
_POSTGRES_TIMES: Final = {
    name: f"""substring(state from '"{name}":([0-9]+)')::bigint""" for name in ("occurred_at", "recorded_at")
}
_SQLITE_EVENTS: Final = """SELECT rowid AS position, originator_id, originator_version, topic,
    CASE WHEN json_valid(CAST(state AS TEXT)) THEN CAST(state AS TEXT) END AS state FROM stored_events"""
_POSTGRES_EVENTS: Final = """SELECT notification_id AS position, originator_id, originator_version, topic,
    convert_from(state, 'UTF8') AS state FROM stored_events"""


def for_sqlite(rfc3339: Callable[[str], str]) -> str:
    """Return the statement that creates the view on SQLite; `rfc3339` returns an expression for a time in ms."""
    return f"CREATE VIEW IF NOT EXISTS group_events AS {_view(_SQLITE_TIMES, _SQLITE_EVENTS, rfc3339)}"


def for_postgres(rfc3339: Callable[[str], str]) -> str:
    """Return the statement that creates the view on PostgreSQL."""
    return f"CREATE OR REPLACE VIEW group_events AS {_view(_POSTGRES_TIMES, _POSTGRES_EVENTS, rfc3339)}"


def _view(times: dict[str, str], events: str, rfc3339: Callable[[str], str]) -> str:
    columns = ", ".join(f"{expression} AS {name}" for name, expression in times.items())
    shown = ", ".join(f"{rfc3339(name)} AS {name}, {name} AS {name}_ms" for name in times)
    return (
        f"SELECT position, originator_id AS group_id, originator_version AS version, topic AS type, {shown}"
        f" FROM (SELECT position, originator_id, originator_version, topic, {columns} FROM ({events}) AS stored) AS e"
    )
