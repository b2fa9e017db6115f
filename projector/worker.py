"""Rebuilding beside a running server: another process builds, this one goes on serving what it has."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

import structlog

from projector.event_store import StoreUnavailable
from projector.read_model import ReadModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_POLL_S: Final = 1.0
_MAX_BACKOFF_S: Final = 60.0

log = structlog.get_logger(__name__)


class AutoRebuild:
    """Runs `projector replay --if-needed` in a process of its own whenever there is a reason to.

    `reasons` returns why what there is cannot be used, and may raise StoreUnavailable and ReadModelUnavailable.
    """

    def __init__(self, reasons: Callable[[], list[str]], environment: Mapping[str, str]) -> None:
        self._reasons = reasons
        self._environment = environment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rebuilding")
        self._builder: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Look after the read model, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is being built, if anything; the next start begins again."""
        self._stopping.set()
        if (builder := self._builder) is not None:
            builder.terminate()
        self._thread.join()

    def _run(self) -> None:
        backoff = _POLL_S
        while not self._stopping.is_set():
            failed = (reasons := self._seen()) and self._build(reasons) != 0
            backoff = min(backoff * 2, _MAX_BACKOFF_S) if failed else _POLL_S
            self._stopping.wait(backoff)

    def _seen(self) -> list[str]:
        try:
            return self._reasons()
        except (StoreUnavailable, ReadModelUnavailable):
            return []  # whoever projects says so

    def _build(self, reasons: list[str]) -> int:
        log.info("the read model is built again", reason=reasons[0])
        command = [sys.executable, "-m", "projector", "replay", "--if-needed"]
        self._builder = subprocess.Popen(  # noqa: S603 - our own command
            command, env={**self._environment}, stdout=subprocess.DEVNULL, start_new_session=True
        )
        if self._stopping.is_set():
            self._builder.terminate()
        status = self._builder.wait()
        if status and not self._stopping.is_set():
            log.warning("the read model could not be built", exit_status=status)
        return status
