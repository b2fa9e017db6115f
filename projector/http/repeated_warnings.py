"""Warnings that senders cause, and could cause without end: identical ones are logged once a minute, with a count."""

import asyncio
from typing import Any, Final

_WINDOW_S: Final = 60.0
_MAX_KEPT: Final = 1_000

_Warning = tuple[str, tuple[tuple[str, Any], ...]]


class RepeatedWarnings:
    """Logs a warning when it first occurs, and a minute later how often it was repeated; for one event loop."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._repeated: dict[_Warning, int] = {}

    def warn(self, event: str, **fields: Any) -> None:
        warning = (event, tuple(fields.items()))
        if warning in self._repeated:
            self._repeated[warning] += 1
            return
        self._log.warning(event, **fields)
        if len(self._repeated) < _MAX_KEPT:
            self._repeated[warning] = 0
            asyncio.get_running_loop().call_later(_WINDOW_S, self._end, warning)

    def close(self) -> None:
        """Log the repetitions that have not been logged."""
        for warning in [*self._repeated]:
            self._end(warning)

    def _end(self, warning: _Warning) -> None:
        if repeated := self._repeated.pop(warning, 0):
            event, fields = warning
            self._log.warning(event, **dict(fields), repeated=repeated)
