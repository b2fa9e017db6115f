"""The callbacks that were posted to a released version, posted to this one: it stores and serves the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.frozen.frozen import Clock, differing, rows, writing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.frozen.frozen import Frozen

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

STORED = {
    "events": "SELECT originator_id, originator_version, topic, state FROM stored_events ORDER BY POSITION",
    # The identities of callbacks without a time are random; they exist on PostgreSQL only.
    "identities": "SELECT identity, position FROM identities WHERE length(identity) = 18 ORDER BY position",
    "redactions": "SELECT position, fingerprint FROM redactions ORDER BY position",
    "quarantine": "SELECT digest, received_at, times, command, platform, body, position FROM quarantine ORDER BY id",
    "pseudonyms": "SELECT pseudonym FROM forgotten ORDER BY id",
}
"""Every column except for the reasons, which are texts for people, and random values."""


def stored(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {name: rows(database, query) for name, query in STORED.items()}


def test_the_same_callbacks_at_the_same_times_are_stored_and_served_byte_for_byte(
    version: Frozen, tmp_path: Path
) -> None:
    seen = version.store("plain")
    requests = version.requests("full")
    clock = Clock(tmp_path / "clock", requests[0].at)
    settings = clock.settings({}, unreadable=version.manifest["unreadable"])
    (tmp_path / "new").mkdir()
    database = tmp_path / "new" / "events.db"
    with writing(database, requests, seen["forgotten"], clock, **settings) as (server, acknowledged):
        assert " ".join(map(str, acknowledged)) == seen["acknowledged"]
        assert differing(server, version.responses("full")[::5]) == []
    (tmp_path / "frozen").mkdir()
    assert stored(database) == stored(version.unpack("plain", tmp_path / "frozen"))
