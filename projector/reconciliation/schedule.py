"""Reconciling from time to time beside a server, in a process of its own."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from projector.clock import now_ms
from projector.event_store import EventStore, StoreUnavailable
from projector.event_store.reconciliations import RunReport

_POLL_S: Final = 1.0
_MIN_BACKOFF_S: Final = 30.0

log = structlog.get_logger(__name__)


class Schedule:
    """Runs `projector reconcile` whenever the newest run of any machine began `every_s` seconds ago.

    An interrupted run goes on at once, and after failures ever later.
    """

    def __init__(self, store: EventStore, every_s: int, environment: Mapping[str, str]) -> None:
        self._store = store
        self._every_s = every_s
        self._environment = environment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciliation")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and end a run that is under way; the next start goes on with it."""
        self._stopping.set()
        if (process := self._process) is not None:
            process.terminate()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S if not self._is_due() else 0):
            if self._is_due():
                self._reconcile()

    def _is_due(self) -> bool:
        try:
            newest = self._store.reconciliations.newest()
        except StoreUnavailable:
            return False
        return newest is None or now_ms() >= due_at(newest, self._every_s)

    def _reconcile(self) -> None:
        command = [sys.executable, "-m", "projector", "reconcile", "--json"]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env={**self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if self._stopping.is_set():
            self._process.terminate()
        output, errors = self._process.communicate()
        if self._stopping.is_set():
            return
        if self._process.returncode in (0, 1):
            report = msgspec.json.decode(output, type=RunReport)
            log.info("reconciled", run=report.run, events=report.events, never_received=report.never_received)
            return
        reasons = [line for line in errors.splitlines() if line.startswith("projector: ")]
        log.warning("reconciling failed", reason=(reasons or ["no reason"])[-1].removeprefix("projector: "))
        self._stopping.wait(_MIN_BACKOFF_S)  # also if another machine reconciles, or the store is away


def due_at(newest: RunReport, every_s: int) -> int:
    """Return when the next run is due, in ms."""
    if newest.state == "finished":
        return newest.started_at + every_s * 1_000
    backoff_s = min(_MIN_BACKOFF_S * 2 ** min(newest.failures - 1, 20), every_s) if newest.failures else 0
    return (newest.failed_at or newest.started_at) + int(backoff_s * 1_000)
