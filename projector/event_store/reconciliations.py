"""Runs that compare the groups with the vendor's REST API: their reports, and their work, in tables beside the events.

No part of the history: replay does not need them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from projector.database import Connection
from projector.event_store.tables import RECONCILIATIONS, Transactions

RunState: TypeAlias = Literal["listing", "reading", "settling", "finished", "stopped"]
"""The stage of a run that can be resumed; or finished, or stopped for good, by a safety limit or by a newer run."""

_DONE: Final = ("finished", "stopped")
_BATCH_SIZE: Final = 1_000
_MAX_KEPT: Final = 1_000
_RECHECK_S: Final = 5.0


class KindCounts(msgspec.Struct):
    """How many differences of a kind were found, and what became of them.

    `corrected` ones were appended. Of those `in_flight`, newer callbacks came meanwhile; `settled_late` ones
    disappeared; of those `unsettled`, the second answer was another than the first, or none.
    """

    found: int = 0
    corrected: int = 0
    in_flight: int = 0
    settled_late: int = 0
    unsettled: int = 0


class Totals(msgspec.Struct):
    """Counts over runs, and when the last one of all groups finished, in ms."""

    found: dict[str, int] = {}
    corrected: dict[str, int] = {}
    requests: dict[str, dict[str, int]] = {}
    finished_at: int | None = None


class RunReport(msgspec.Struct, kw_only=True):
    """What a run has done so far. Times are in ms since 1970 UTC; `scope` are the groups it is limited to, if it is.

    `groups` and `kinds` are counts, `requests` those by command and code. `failures` counts failed attempts since the
    last run that finished; `reason` is of the last. `learned` counts what contradicted nothing: limits, whole rosters.
    `before` has the totals of all earlier runs.
    """

    run: int
    state: RunState
    reason: str | None = None
    check: bool = False
    scope: list[str] | None = None
    is_first: bool = False
    started_at: int
    finished_at: int | None = None
    failures: int = 0
    failed_at: int | None = None
    groups: dict[str, int] = {}
    learned: dict[str, int] = {}
    kinds: dict[str, KindCounts] = {}
    never_received: list[str] = []
    requests: dict[str, dict[str, int]] = {}
    events: int = 0
    before: Totals = msgspec.field(default_factory=Totals)

    def count(self, counts: dict[str, int], name: str, number: int = 1) -> None:
        counts[name] = counts.get(name, 0) + number

    def kind(self, name: str) -> KindCounts:
        return self.kinds.setdefault(name, KindCounts())

    def totals(self) -> Totals:
        """Return the totals of all runs up to this one."""
        is_whole = self.state == "finished" and self.scope is None
        totals = Totals(
            {**self.before.found},
            {**self.before.corrected},
            {command: {**codes} for command, codes in self.before.requests.items()},
            self.finished_at if is_whole else self.before.finished_at,
        )
        for kind, counts in self.kinds.items():
            self.count(totals.found, kind, counts.found)
            self.count(totals.corrected, kind, counts.corrected)
        for command, codes in self.requests.items():
            for code, number in codes.items():
                self.count(totals.requests.setdefault(command, {}), code, number)
        return totals


class Outcome(NamedTuple):
    """What reading a group led to: it `differs`, and is due again at `due_at` (ms) with what was `found`; or is done.

    A group is verified if it was read and did not differ.
    """

    group_id: str
    differs: bool = False
    due_at: int | None = None
    found: str | None = None
    is_compared: bool = True
    is_verified: bool = False


class DifferingGroup(NamedTuple):
    """A group that is to be read again at `due_at`, and what was found when it was read first."""

    group_id: str
    due_at: int
    found: str


class Reconciliations:
    """The runs, and the groups of the newest one. All methods raise StoreUnavailable."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._exists = self._has_run = False
        self._checked_at = float("-inf")

    def begin(self, *, scope: Sequence[str], check: bool, now_ms: int) -> RunReport:
        """Return the newest run if it has the same scope and can be resumed; else begin another."""
        newest = self.newest()
        wanted = sorted(scope) or None
        if newest and newest.state not in _DONE and (newest.scope, newest.check) == (wanted, check):
            return newest
        totals = newest.totals() if newest else Totals()
        with self._transactions.writing() as connection:
            if newest and newest.state not in _DONE:
                newest.state, newest.reason = "stopped", "another run began"
                _update(connection, newest)
            report = RunReport(
                run=0,
                state="listing",
                check=check,
                scope=wanted,
                is_first=totals.finished_at is None,
                started_at=now_ms,
                before=totals,
                failures=newest.failures if newest else 0,
            )
            connection.execute("DELETE FROM reconciliations WHERE id <= ?", (newest.run - _MAX_KEPT if newest else 0,))
            ((report.run,),) = connection.execute(
                "INSERT INTO reconciliations (started_at, state, report) VALUES (?, ?, '') RETURNING id",
                (now_ms, report.state),
            )
            _update(connection, report)
        return report

    def newest(self) -> RunReport | None:
        """Return the newest run."""
        if not self._has_tables():
            return None
        with self._transactions.reading() as connection:
            query = "SELECT report FROM reconciliations WHERE report <> '' ORDER BY id DESC LIMIT 1"
            row = connection.execute(query).fetchone()
        return msgspec.json.decode(row[0], type=RunReport) if row else None

    def save(self, report: RunReport) -> None:
        """Save the state of a run."""
        with self._transactions.writing() as connection:
            _update(connection, report)

    def add_groups(self, run: int, group_ids: Sequence[str]) -> None:
        """Add groups to a run's list; those that are on it already stay as they are."""
        for start in range(0, len(group_ids), _BATCH_SIZE):
            with self._transactions.writing() as connection:
                for group_id in group_ids[start : start + _BATCH_SIZE]:
                    connection.execute(
                        "INSERT INTO compared_groups (group_id, run, state) VALUES (?, ?, 'listed')"
                        " ON CONFLICT (group_id) DO UPDATE SET run = excluded.run, state = 'listed', due_at = NULL,"
                        " found = NULL WHERE compared_groups.run <> excluded.run",
                        (group_id, run),
                    )

    def listed(self, run: int, limit: int) -> list[str]:
        """Return groups of a run that are not read yet."""
        query = "SELECT group_id FROM compared_groups WHERE run = ? AND state = 'listed' ORDER BY group_id LIMIT ?"
        with self._transactions.reading() as connection:
            return [group_id for (group_id,) in connection.execute(query, (run, limit))]

    def differing(self, run: int, limit: int) -> list[DifferingGroup]:
        """Return groups of a run that are to be read again, those due first."""
        query = (
            "SELECT group_id, due_at, found FROM compared_groups WHERE run = ? AND state = 'differs'"
            " ORDER BY due_at, group_id LIMIT ?"
        )
        with self._transactions.reading() as connection:
            return [DifferingGroup(*row) for row in connection.execute(query, (run, limit))]

    def count(self, run: int, state: str | None = None) -> int:
        """Return how many groups of a run are in a state: listed, differs or done; or on its list."""
        condition, arguments = ("", ()) if state is None else (" AND state = ?", (state,))
        with self._transactions.reading() as connection:
            query = f"SELECT COUNT(*) FROM compared_groups WHERE run = ?{condition}"
            return int(connection.execute(query, (run, *arguments)).fetchone()[0])

    def record(self, report: RunReport, outcomes: Iterable[Outcome], *, now_ms: int) -> None:
        """Save what reading groups led to, together with the state of the run."""
        with self._transactions.writing() as connection:
            for outcome in outcomes:
                connection.execute(
                    "UPDATE compared_groups SET state = ?, due_at = ?, found = ?,"
                    " compared_at = COALESCE(?, compared_at), verified_at = COALESCE(?, verified_at)"
                    " WHERE group_id = ? AND run = ?",
                    (
                        "differs" if outcome.differs else "done",
                        outcome.due_at,
                        outcome.found,
                        now_ms if outcome.is_compared else None,
                        now_ms if outcome.is_verified else None,
                        outcome.group_id,
                        report.run,
                    ),
                )
            _update(connection, report)

    def verified_at(self, group_ids: Sequence[str]) -> dict[str, int]:
        """Return when a run last found no difference in these groups, in ms; groups without such a run are left out."""
        if not (group_ids and self._may_have_verified()):
            return {}
        with self._transactions.reading() as connection:
            rows = connection.execute(
                "SELECT group_id, verified_at FROM compared_groups WHERE verified_at IS NOT NULL"
                f" AND group_id IN ({', '.join('?' * len(group_ids))})",
                tuple(group_ids),
            )
            return dict(iter(rows))

    def has_received(self, event_type: str) -> bool:
        """Return whether there is an event of a type. If there is none, this reads the whole history."""
        with self._transactions.reading() as connection:
            query = "SELECT 1 FROM stored_events WHERE topic = ? LIMIT 1"
            return connection.execute(query, (event_type,)).fetchone() is not None

    def oldest_comparison(self) -> int | None:
        """Return when the group was compared that has waited longest, in ms; None if none was."""
        if not self._has_tables():
            return None
        with self._transactions.reading() as connection:
            row = connection.execute("SELECT MIN(compared_at) FROM compared_groups").fetchone()
        return row[0] if row else None

    def _may_have_verified(self) -> bool:
        """Return whether there was a run. Until there was one, that is looked up at most every few seconds."""
        if not self._has_run and time.monotonic() - self._checked_at > _RECHECK_S:
            self._checked_at = time.monotonic()
            self._has_run = self.newest() is not None
        return self._has_run

    def _has_tables(self) -> bool:
        """Return whether there are tables: a store of an earlier version that is only read has none."""
        if not self._exists:
            with self._transactions.reading() as connection:
                self._exists = connection.has_table(RECONCILIATIONS.name)
        return self._exists


def _update(connection: Connection, report: RunReport) -> None:
    connection.execute(
        "UPDATE reconciliations SET state = ?, report = ? WHERE id = ?",
        (report.state, msgspec.json.encode(report).decode(), report.run),
    )
