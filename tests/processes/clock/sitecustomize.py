"""Makes the clock wrong by the number of seconds in a file, in processes with this folder on their path."""

import os
import time
from pathlib import Path

_WRONG_BY = Path(os.environ["WRONG_BY"])
_time, _time_ns = time.time, time.time_ns


def _seconds() -> int:
    return int(_WRONG_BY.read_text()) if _WRONG_BY.exists() else 0


time.time = lambda: _time() + _seconds()
time.time_ns = lambda: _time_ns() + _seconds() * 10**9
