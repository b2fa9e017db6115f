"""Exit statuses: errors that a user can remove are one line on stderr, and status 2."""

import os
import sys
from collections.abc import Callable
from typing import Final

from projector.cli.output import note
from projector.event_store import StoreUnavailable
from projector.forgetting import TracesRemain
from projector.forwarding.state import StateUnavailable
from projector.read_model import ReadModelUnavailable
from projector.reconciliation.rest_errors import RestError
from projector.reconciliation.run import Unsafe
from projector.reconciliation.run_lock import AlreadyRunning
from projector.replay.replay import CannotReplay
from projector.settings import WrongSetting

_ERRORS: Final = (
    *(WrongSetting, StoreUnavailable, ReadModelUnavailable, CannotReplay, TracesRemain),
    *(RestError, Unsafe, AlreadyRunning, StateUnavailable),
)


def exit_status(run: Callable[[], int]) -> int:
    """Return the exit status of `run`, also for the errors that it raises."""
    try:
        return run()
    except _ERRORS as error:
        note(f"projector: {error}")
        return 2
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        _discard_output()
        note(f"projector: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        return 130


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that Python does not fail again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
