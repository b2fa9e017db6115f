"""Rebuilding the read model beside a running server, which serves the previous one meanwhile."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from projector.event_store import StoreUnavailable
from projector.logs import Condition
from projector.read_model import ReadModelUnavailable

_POLL_S: Final = 1.0
_MAX_START_S: Final = 1.0
"""How long a start waits for the first build: callbacks wait meanwhile, and the vendor gives up after two seconds."""

_MAX_BACKOFF_S: Final = 60.0

log = structlog.get_logger(__name__)


class AutoRebuild:
    """Runs `projector replay --if-needed` in a process of its own while there is a reason to.

    `reasons` returns why the live read model cannot be used. `build_at_once`, called once before, builds a read model
    of few events in this process. Both may raise StoreUnavailable and ReadModelUnavailable.
    """

    def __init__(
        self, reasons: Callable[[], list[str]], environment: Mapping[str, str], build_at_once: Callable[[], None]
    ) -> None:
        self._reasons = reasons
        self._build_at_once = build_at_once
        self._has_built = threading.Event()
        self._environment = environment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rebuild")
        self._process: subprocess.Popen[bytes] | None = None
        self._failing = Condition(
            log, begins="rebuilding the read model failed; trying again", ends="the read model is rebuilt"
        )
        self._failed_reason: str | None = None

    def start(self) -> None:
        """Start, and wait a moment for the first build."""
        self._thread.start()
        self._has_built.wait(_MAX_START_S)

    def stop(self) -> None:
        """Stop, and end a rebuild that is under way; the next start begins it again."""
        self._stopping.set()
        if (process := self._process) is not None:
            process.terminate()
        self._thread.join()

    def _run(self) -> None:
        self._build_first()
        backoff = _POLL_S
        while not self._stopping.is_set():
            backoff = min(backoff * 2, _MAX_BACKOFF_S) if self._rebuild_failed() else _POLL_S
            self._stopping.wait(backoff)

    def _build_first(self) -> None:
        try:
            self._build_at_once()
        except Exception as error:  # noqa: BLE001 - the rebuild in another process is tried next, and reports again
            log.warning("the read model is not built yet; trying again", reason=str(error))
        finally:
            self._has_built.set()

    def _rebuild_failed(self) -> bool:
        """Rebuild if there is a reason to; return whether that failed."""
        try:
            reasons = self._reasons()
        except (StoreUnavailable, ReadModelUnavailable):
            return False  # the subscription reports it
        if reasons and (status := self._rebuild(reasons[0])):
            self._failed_reason = reasons[0]
            if not self._stopping.is_set():
                self._failing.met(f"exit status {status}")
            return True
        self._failing.over()
        self._failed_reason = None
        return False

    def _rebuild(self, reason: str) -> int:
        if reason != self._failed_reason:
            log.info("rebuilding the read model", reason=reason)
        open_while_alive, alive = os.pipe()
        command = [sys.executable, "-m", "projector", "replay", "--if-needed", "--while-open", str(open_while_alive)]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env={**self._environment},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(open_while_alive,),
        )
        if self._stopping.is_set():
            self._process.terminate()
        status = self._process.wait()
        os.close(open_while_alive)
        os.close(alive)
        return status
