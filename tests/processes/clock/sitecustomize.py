"""A clock that is wrong by as many seconds as a file says, for a process that has this folder on its path."""

import os
import time
from pathlib import Path

_WRONG_BY = Path(os.environ["WRONG_BY"])
_time, _time_ns = time.time, time.time_ns


def _seconds() -> int:
    return int(_WRONG_BY.read_text()) if _WRONG_BY.exists() else 0


time.time = lambda: _time() + _seconds()
time.time_ns = lambda: _time_ns() + _seconds() * 10**9
