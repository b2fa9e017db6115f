"""The supervisor: starts processes by forking, starts those again that die, and stops them in order."""

import gc
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import structlog

from projector.processes.board import Board, ProcessState
from projector.processes.parent import stop_with_parent

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOP_TIMEOUT_S: Final = 20.0
"""How long a process may take to stop, which is more than it should, before it is killed."""

_LONG_LIVED_S: Final = 1.0
"""A process that has lived so long is started again at once; others after a growing pause."""

_MIN_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 10.0

log = structlog.get_logger("projector")


class Process(NamedTuple):
    """A process: its name, and its work, which returns the exit status and calls its argument once it is ready.

    SIGTERM asks it to stop, a second one to stop at once. Processes of a higher `stage` are stopped later.
    """

    name: str
    run: Callable[[Callable[[], None]], int]
    stage: int = 0


class _Child:
    """A process as the supervisor sees it, while it runs or until it is started again."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pid: int | None = None
        self.ready = -1
        self.started_at = self.restart_at = 0.0
        self.backoff_s = _MIN_BACKOFF_S
        self.state = ProcessState()

    def died(self, status: int) -> None:
        """Note its exit status, and when to start it again."""
        now, code = time.monotonic(), os.waitstatus_to_exitcode(status)
        is_long_lived = now - self.started_at > _LONG_LIVED_S
        self.backoff_s = _MIN_BACKOFF_S if is_long_lived else min(self.backoff_s * 2, _MAX_BACKOFF_S)
        self.restart_at = now + (0 if is_long_lived else self.backoff_s)
        self.pid = None
        end = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        self.state = ProcessState(restarts=self.state.restarts, last_end=end)


class Supervisor:
    """Runs processes until it gets SIGTERM, SIGINT or SIGHUP. To be used in a process of one thread.

    `prepare` is called first in each process, with its name, and `on_stop` before the processes are stopped.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        board: Board,
        *,
        prepare: Callable[[str], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._children = [_Child(process) for process in processes]
        self._board = board
        self._prepare = prepare
        self._on_stop = on_stop
        self._signals, self._signals_in = os.pipe()
        self._alive, self._alive_in = os.pipe()
        for descriptor in (self._signals, self._signals_in):
            os.set_blocking(descriptor, False)

    def run(self, on_started: Callable[[], None]) -> int:
        """Start the processes one after the other, and run until stopped; return 0.

        If a process ends before it is ready, stop the others and return its exit status.
        """
        signal.set_wakeup_fd(self._signals_in, warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, _ignore)
        gc.freeze()  # so that collections do not copy the pages that are shared with the processes
        for child in self._children:
            self._start(child)
            if (status := self._wait_until_ready(child)) is not None:
                self._stop()
                return status
        on_started()
        while not self._stop_requested(self._next_restart()):
            for child in self._reap():
                log.error("a process died; starting it again", process=child.process.name, reason=child.state.last_end)
            for child in self._children:
                if child.pid is None and child.restart_at <= time.monotonic():
                    child.state = ProcessState(restarts=child.state.restarts + 1, last_end=child.state.last_end)
                    self._start(child)
        self._stop()
        return 0

    def _start(self, child: _Child) -> None:
        if child.ready >= 0:
            os.close(child.ready)
        child.ready, ready_in = os.pipe()
        child.started_at = time.monotonic()
        if (pid := os.fork()) == 0:
            self._run_child(child.process, ready_in)
        os.close(ready_in)
        child.pid = pid
        child.state = ProcessState(pid, restarts=child.state.restarts, last_end=child.state.last_end)
        self._board.save_state(child.process.name, child.state)

    def _run_child(self, process: Process, ready_in: int) -> None:
        """Run a process, in the process itself, and end it."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in STOP_SIGNALS:
                # The terminal sends Ctrl-C to every process; the supervisor knows the order.
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (self._signals, self._signals_in, self._alive_in):
                os.close(descriptor)
            self._prepare(process.name)
            stop_with_parent(self._alive, timeout_s=_STOP_TIMEOUT_S)
            status = process.run(lambda: os.close(ready_in) if os.write(ready_in, b"\0") else None)
        except BaseException:
            log.exception("unexpected error")
        finally:
            logging.shutdown()
            os._exit(status)

    def _wait_until_ready(self, child: _Child) -> int | None:
        """Return None when the process is ready, or a signal asks to stop; its exit status if it ends before."""
        while True:
            readable, _, _ = select.select([child.ready, self._signals], [], [])
            if child.ready in readable:
                if os.read(child.ready, 1):
                    return None
                assert child.pid is not None
                _, status = os.waitpid(child.pid, 0)
                child.died(status)
                return abs(os.waitstatus_to_exitcode(status)) or 1
            if self._stop_requested(0):
                os.write(self._signals_in, bytes([signal.SIGTERM]))  # for the loop that stops
                return None

    def _next_restart(self) -> float | None:
        """Return in how many seconds the next process must be started again, None if all are running."""
        restarts = [child.restart_at for child in self._children if child.pid is None]
        return max(0.0, min(restarts) - time.monotonic()) if restarts else None

    def _stop_requested(self, timeout_s: float | None) -> bool:
        """Wait for a signal; return whether it asks to stop."""
        select.select([self._signals], [], [], timeout_s)
        try:
            return not {*STOP_SIGNALS}.isdisjoint(os.read(self._signals, 4096))
        except BlockingIOError:
            return False

    def _reap(self) -> list[_Child]:
        """Return the processes that have ended since the last call."""
        ended = []
        for child in self._children:
            if child.pid is not None:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    child.died(status)
                    self._board.save_state(child.process.name, child.state)
                    self._board.save_failure(child.process.name, None)
                    ended.append(child)
        return ended

    def _stop(self) -> None:
        self._on_stop()
        for stage in sorted({child.process.stage for child in self._children}):
            self._stop_stage([child for child in self._children if child.process.stage == stage])

    def _stop_stage(self, children: Sequence[_Child]) -> None:
        self._signal(children, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while any(child.pid is not None for child in children):
            if self._stop_requested(min(1.0, max(0.0, deadline - time.monotonic()))):
                self._signal(children, signal.SIGTERM)
            self._reap()
            if time.monotonic() > deadline:
                log.error("processes did not stop in time; killing them")
                self._signal(children, signal.SIGKILL)
                deadline += _STOP_TIMEOUT_S

    @staticmethod
    def _signal(children: Sequence[_Child], number: signal.Signals) -> None:
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, number)


def _ignore(*_: object) -> None:
    """Let the signal's number arrive in the pipe, and nothing else happen."""
