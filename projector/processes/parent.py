"""Stopping together with the parent, even if the parent was killed."""

import os
import signal
import threading
import time

import structlog

log = structlog.get_logger(__name__)


def stop_with_parent(descriptor: int, *, timeout_s: float) -> None:
    """Send this process SIGTERM when the pipe's other end closes, and end it if it still runs `timeout_s` later."""
    threading.Thread(target=_watch, args=(descriptor, timeout_s), name="parent", daemon=True).start()


def _watch(descriptor: int, timeout_s: float) -> None:
    while os.read(descriptor, 1):
        pass
    log.warning("the parent process is gone; stopping")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(timeout_s)
    os._exit(1)
