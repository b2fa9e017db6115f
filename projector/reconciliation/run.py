"""A run: list the groups, read and compare them, and append what still differs after it had time to settle."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from projector.clock import now_ms
from projector.domain.events import Event
from projector.event_store import EventStore, StoreUnavailable
from projector.event_store.reconciliations import DifferingGroup, Outcome, RunReport
from projector.reconciliation import corrections
from projector.reconciliation.drift import CALLBACKS, EVERYTHING, Difference, differences, unknowns
from projector.reconciliation.mirror import Mirror, MirrorGroup
from projector.reconciliation.readings import Reader, Reading
from projector.reconciliation.rest_client import MAX_GROUPS, MAX_USERS, RestClient
from projector.reconciliation.rest_errors import Gone, NotForType, RestError
from projector.reconciliation.vendor_clock import MAX_PLAUSIBLE_MS

_BATCHES_AT_ONCE: Final = 8
_EVENTS_AT_ONCE: Final = 50
_MAX_GROUPS_GONE: Final = 0.05
_MAX_MEMBERS_GONE: Final = 0.20
_MIN_GONE: Final = 10
"""Fewer groups or memberships than this may go, whatever share of all they are."""

_APPEND_TRIES: Final = 30
_RETRY_S: Final = 0.2
_OF_MEMBERS: Final = ("missing_join", "missed_rejoin", "missing_exit", "stale_role", "stale_name_card")

log = structlog.get_logger(__name__)


class Unsafe(Exception):
    """The answers are so far from the mirror that the settings may be wrong. The text says how, and what to do."""


class RunOptions(NamedTuple):
    """What to compare, and how. `settle_s` is how long a difference must stand; no `scope` is all groups."""

    sdk_app_id: int
    settle_s: float
    check: bool = False
    force: bool = False
    scope: Sequence[str] = ()


class _Confirmed(NamedTuple):
    """Differences of a group that stand; `is_all` if there are no others."""

    reading: Reading
    ours: MirrorGroup | None
    found: list[Difference]
    is_all: bool


class Reconciliation:
    """One run, new or resumed. `on_progress` is called with the stage, and how many groups are done of how many."""

    def __init__(
        self,
        store: EventStore,
        mirror: Mirror,
        client: RestClient,
        options: RunOptions,
        on_progress: Callable[[str, int, int], None] = lambda _, __, ___: None,
    ) -> None:
        self._store = store
        self._ledger = store.reconciliations
        self._mirror = mirror
        self._client = client
        self._options = options
        self._on_progress = on_progress
        self._forgotten_through = store.forgotten.newest()
        self._pseudonyms = store.forgotten.pseudonyms()
        self._pseudonymous = {pseudonym for pseudonym, is_lifted in store.forgotten.all() if not is_lifted}
        self._reader = Reader(client, self._pseudonyms, self._custom_fields)
        self._writing = asyncio.Lock()
        self._done = 0

    async def run(self) -> RunReport:
        """Run to the end, and return the report.

        Raises RestError, Unsafe, StoreUnavailable and ReadModelUnavailable; unless it is Unsafe, running again goes on.
        """
        options = self._options
        report = self._report = self._ledger.begin(scope=options.scope, check=options.check, now_ms=now_ms())
        self._client.calls = report.requests
        try:
            await asyncio.to_thread(self._mirror.catch_up)
            totals = await asyncio.to_thread(self._mirror.counts)
            if report.state == "listing":
                await self._list(totals[0])
            if report.state == "reading":
                await self._read()
                self._require_safe(totals)
                self._enter("settling")
            await self._settle()
        except Exception as error:
            if isinstance(error, Unsafe):
                report.state = "stopped"
            report.reason, report.failed_at = str(error), now_ms()
            report.failures += 1
            self._ledger.save(report)
            raise
        self._finish()
        return report

    async def _list(self, active: int) -> None:
        run, listed = self._report.run, 0
        if self._options.scope:
            self._ledger.add_groups(run, list(self._options.scope))
        else:
            cursor: int | None = 0
            while cursor is not None:
                page = await self._client.list_groups(cursor)
                if cursor == 0 and page.total == 0 and active and not self._options.force:
                    raise Unsafe(
                        f"the vendor lists no groups, but {active} are known; check PROJECTOR_REST_URL, or pass --force"
                    )
                await asyncio.to_thread(self._ledger.add_groups, run, page.group_ids)
                listed += len(page.group_ids)
                self._on_progress("list", listed, max(page.total, listed))
                cursor = page.next
            for group_ids in self._mirror.active_groups():
                await asyncio.to_thread(self._ledger.add_groups, run, group_ids)
        self._report.groups["listed"] = listed
        self._enter("reading")

    async def _read(self) -> None:
        total = self._ledger.count(self._report.run)
        self._done = total - self._ledger.count(self._report.run, "listed")
        while group_ids := self._ledger.listed(self._report.run, MAX_GROUPS * _BATCHES_AT_ONCE):
            batches = [group_ids[start : start + MAX_GROUPS] for start in range(0, len(group_ids), MAX_GROUPS)]
            await _at_once(self._read_batch(batch, total) for batch in batches)

    async def _read_batch(self, group_ids: Sequence[str], total: int) -> None:
        readings = await self._reader.read(group_ids)
        async with self._writing:
            await asyncio.to_thread(self._compare, group_ids, readings)
        self._done += len(group_ids)
        self._on_progress("read", self._done, total)

    def _compare(self, group_ids: Sequence[str], readings: Sequence[Reading]) -> None:
        """Compare groups for the first time; append what contradicts nothing, and note what differs."""
        self._require_same_names()
        unread = set(group_ids) - {reading.group_id for reading in readings}
        outcomes = [Outcome(group_id, is_compared=False) for group_id in sorted(unread)]
        self._report.count(self._report.groups, "unread", len(unread))
        events: list[Event] = []
        with self._mirror.read() as find:
            for reading in readings:
                self._require_own_app(reading)
                ours = find(reading.group_id)
                found = differences(reading, ours)
                self._report.count(self._report.groups, "compared")
                outcomes.append(self._first_outcome(reading.group_id, found))
                events += self._uncontradicted(reading, ours, found)
        self._append(events)
        self._ledger.record(self._report, outcomes, now_ms=now_ms())

    def _first_outcome(self, group_id: str, found: Sequence[Difference]) -> Outcome:
        for difference in found:
            self._report.kind(difference.kind).found += 1
        if not found:
            return Outcome(group_id, is_verified=True)
        if found[0].kind == "unknown_group":
            return Outcome(group_id)
        self._report.count(self._report.groups, "differing")
        hashes = [(difference.kind, difference.key, difference.value_hash) for difference in found]
        due_at = now_ms() + int(self._options.settle_s * 1_000)
        return Outcome(group_id, differs=True, due_at=due_at, found=msgspec.json.encode(hashes).decode())

    def _uncontradicted(
        self, reading: Reading, ours: MirrorGroup | None, found: Sequence[Difference]
    ) -> Sequence[Event]:
        """Return the events of an unknown group, or of what is not known of a group."""
        run, report = self._report.run, self._report
        if found and found[0].kind == "unknown_group":
            report.kind("unknown_group").corrected += not self._options.check
            return [*corrections.whole_group(reading, ours, run=run, reason="unknown_group")]
        if reading.group is None or ours is None or ours.lives.dismissed:
            return []
        events: list[Event] = []
        if reasons := unknowns(reading, ours):
            events.append(corrections.learned(reading, run=run, reasons=reasons))
        if reading.is_complete and not ours.lives.roster_complete and not _concerns_members(found):
            reasons.append("roster")
            events.append(corrections.roster_seen(reading, run=run))
        for reason in reasons:
            report.count(report.learned, reason)
        return events

    async def _settle(self) -> None:
        total = self._ledger.count(self._report.run, "differs")
        done = 0
        while groups := self._ledger.differing(self._report.run, MAX_GROUPS):
            due = [group for group in groups if group.due_at <= max(now_ms(), groups[0].due_at)]
            if (wait_ms := due[0].due_at - now_ms()) > 0:
                await asyncio.sleep(wait_ms / 1_000)
            await self._settle_batch(due)
            done += len(due)
            self._on_progress("settle", done, total)

    async def _settle_batch(self, groups: Sequence[DifferingGroup]) -> None:
        readings = {reading.group_id: reading for reading in await self._reader.read([row.group_id for row in groups])}
        confirmed = await asyncio.to_thread(self._confirm, groups, readings)
        events: list[Event] = []
        for reading, ours, found, is_all in confirmed:
            absences, present = await self._absences(reading, found)
            for difference in present:
                self._report.kind(difference.kind).unsettled += 1
            settled = [difference for difference in found if difference not in present]
            events += corrections.corrections(reading, ours, settled, run=self._report.run)
            events += absences
            if is_all and not present and _completes_roster(reading, ours, settled):
                events.append(corrections.roster_seen(reading, run=self._report.run))
                self._report.count(self._report.learned, "roster")
            for difference in settled:
                self._report.kind(difference.kind).corrected += not self._options.check
        await asyncio.to_thread(self._append, events)
        outcomes = [Outcome(group.group_id, is_compared=group.group_id in readings) for group in groups]
        await asyncio.to_thread(self._ledger.record, self._report, outcomes, now_ms=now_ms())

    def _confirm(self, groups: Sequence[DifferingGroup], readings: dict[str, Reading]) -> list[_Confirmed]:
        """Return the differences that stand: shown again, and contradicted by no newer callback."""
        self._require_same_names()
        confirmed = []
        with self._mirror.read() as find:
            for group in groups:
                first: list[tuple[str, str, str]] = msgspec.json.decode(group.found)
                if (reading := readings.get(group.group_id)) is None:
                    for kind, _, _ in first:
                        self._report.kind(kind).unsettled += 1
                    continue
                ours = find(group.group_id)
                second = {difference.key: difference for difference in differences(reading, ours)}
                standing = [item for row in first if (item := self._standing(row, second, reading))]
                confirmed.append(_Confirmed(reading, ours, standing, is_all=len(standing) == len(second)))
        return confirmed

    def _standing(
        self, first: tuple[str, str, str], second: dict[str, Difference], reading: Reading
    ) -> Difference | None:
        """Return the difference if it stands; otherwise count what became of it."""
        kind, key, value_hash = first
        counts, difference = self._report.kind(kind), second.get(key)
        asked_at = reading.gone_at if reading.group is None else reading.group.occurred_at
        if difference is None:
            if kind == "missing_exit" and not reading.is_complete:
                counts.unsettled += 1
            else:
                counts.settled_late += 1
        elif difference.value_hash != value_hash:
            counts.unsettled += 1
        elif difference.at[0] > asked_at - self._options.settle_s * 1_000:
            counts.in_flight += 1
        else:
            return difference
        return None

    async def _absences(self, reading: Reading, found: Sequence[Difference]) -> tuple[list[Event], list[Difference]]:
        """Ask by name about users who are listed no more; return events, and the differences that are not proven."""
        candidates = {difference.subject: difference for difference in found if difference.kind == "missing_exit"}
        named = [user for user in candidates if user not in self._pseudonymous]
        absent: set[str] = set()
        events: list[Event] = []
        for start in range(0, len(named), MAX_USERS):
            try:
                proven, answer = await self._client.absent(reading.group_id, named[start : start + MAX_USERS])
            except (Gone, NotForType):
                break
            absent |= proven
            if proven:
                users = [user for user in named if user in proven]
                events.append(corrections.members_absent(reading.group_id, users, answer, run=self._report.run))
        unnamed = [user for user in candidates if user in self._pseudonymous]
        if unnamed and reading.is_one_answer and reading.group is not None:
            # Whom the vendor cannot be asked about, since the id is forgotten, was twice missing from a whole roster.
            absent.update(unnamed)
            events.append(corrections.unlisted(reading, unnamed, run=self._report.run))
        return events, [difference for user, difference in candidates.items() if user not in absent]

    def _require_safe(self, totals: tuple[int, int]) -> None:
        if self._options.force:
            return
        kinds = (("phantom_group", "groups", _MAX_GROUPS_GONE), ("missing_exit", "memberships", _MAX_MEMBERS_GONE))
        for (kind, name, share), total in zip(kinds, totals, strict=True):
            gone = self._report.kinds[kind].found if kind in self._report.kinds else 0
            if gone > _MIN_GONE and gone > share * total:
                raise Unsafe(
                    f"the vendor shows {gone} of {total} {name} no more, which is over {share:.0%}; nothing of that was"
                    " changed. Check PROJECTOR_REST_URL, or pass --force if it is so"
                )

    def _require_own_app(self, reading: Reading) -> None:
        if reading.app_id not in (None, self._options.sdk_app_id) and not self._options.force:
            raise Unsafe(
                f"the vendor shows groups of SDKAppID {reading.app_id}, not {self._options.sdk_app_id}; check"
                " PROJECTOR_SDK_APP_ID and PROJECTOR_REST_KEY"
            )

    def _require_same_names(self) -> None:
        """Raise RestError if users were forgotten meanwhile: readings would name them as before."""
        if self._store.forgotten.unfinished_count() or self._store.forgotten.newest() != self._forgotten_through:
            raise RestError("users are being forgotten; run `projector reconcile` again afterwards")

    def _custom_fields(self, group_id: str) -> Iterable[str]:
        with self._mirror.read() as find:
            group = find(group_id)
        return group.profile.custom_fields if group else ()

    def _append(self, events: Sequence[Event]) -> None:
        """Append events unless this is a check. The store may be busy for a while."""
        if self._options.check:
            return
        for start in range(0, len(events), _EVENTS_AT_ONCE):
            batch = [
                corrections.candidate(event, self._report.run) for event in events[start : start + _EVENTS_AT_ONCE]
            ]
            for attempt in range(_APPEND_TRIES):
                try:
                    appended = self._store.append(batch)
                    break
                except StoreUnavailable:
                    if attempt == _APPEND_TRIES - 1:
                        raise
                    time.sleep(_RETRY_S)
            self._report.events += sum(not result.repeated for result in appended)

    def _enter(self, stage: str) -> None:
        self._report.state = stage  # type: ignore[assignment]
        self._ledger.save(self._report)

    def _finish(self) -> None:
        report = self._report
        report.state, report.finished_at, report.reason, report.failures = "finished", now_ms(), None, 0
        found = [CALLBACKS[kind] for kind, counts in report.kinds.items() if counts.found and kind in CALLBACKS]
        report.never_received = sorted(
            {command for event_type, command in found if not self._ledger.has_received(event_type)}
        )
        if abs(difference := self._client.clock.difference_ms) > MAX_PLAUSIBLE_MS:
            log.warning("the vendor's clock differs from this machine's", seconds=round(difference / 1_000, 1))
        self._ledger.save(report)
        self._mirror.announce()


def has_drift(report: RunReport) -> bool:
    """Tell whether differences stood, whether they were corrected or not."""
    return any(counts.found > counts.in_flight + counts.settled_late for counts in report.kinds.values())


def _concerns_members(found: Iterable[Difference]) -> bool:
    return any(difference.kind in (*_OF_MEMBERS, *EVERYTHING) for difference in found)


def _completes_roster(reading: Reading, ours: MirrorGroup | None, settled: Iterable[Difference]) -> bool:
    """Tell whether the whole roster is known once these differences are corrected, and was not before."""
    is_whole = any(difference.kind in EVERYTHING for difference in settled)
    return reading.is_complete and ours is not None and not ours.lives.roster_complete and not is_whole


async def _at_once(work: Iterable[Awaitable[None]]) -> None:
    """Wait for all; after a failure, cancel the others and raise it."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
