"""The app whose events a database holds, recorded in it as its SDKAppID."""

from projector.database import Connection


def recorded_app(connection: Connection) -> int | None:
    """Return the SDKAppID, None if none is recorded."""
    row = connection.execute("SELECT sdk_app_id FROM app").fetchone()
    return int(row[0]) if row else None


def record_app(connection: Connection, sdk_app_id: int) -> int:
    """Record an SDKAppID unless one is recorded; return the recorded one."""
    connection.execute("INSERT INTO app VALUES (1, ?) ON CONFLICT DO NOTHING", (sdk_app_id,))
    recorded = recorded_app(connection)
    assert recorded is not None
    return recorded
