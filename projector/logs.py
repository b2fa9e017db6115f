"""Logs on stderr: for people on a terminal, JSON elsewhere. They never contain tokens, bodies or accounts.

What lasts is logged when it begins and when it ends, and not at every attempt in between.
"""

import logging
import logging.config
import os
import sys
import threading
from functools import partial
from typing import Any, Final, Literal

import structlog

from projector.printable import printable

_tracebacks: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # local variables hold tokens, bodies and accounts
)


class Condition:
    """Something wrong that lasts, such as an unavailable database.

    Its beginning is logged, and each new reason, and its end with the number of repetitions. Methods may be called from
    any thread.
    """

    def __init__(self, log: Any, *, begins: str, ends: str, level: Literal["warning", "error"] = "warning") -> None:
        self._log = log
        self._begins = begins
        self._ends = ends
        self._level = level
        self._lock = threading.Lock()
        self._reasons: set[str] = set()
        self._repeated = 0

    def met(self, reason: str, *, error: Exception | None = None) -> None:
        """Log the reason, unless it was logged since the beginning; with the traceback of `error`."""
        with self._lock:
            if is_repeated := reason in self._reasons:
                self._repeated += 1
            self._reasons.add(reason)
        if not is_repeated:
            getattr(self._log, self._level)(self._begins, reason=reason, exc_info=error)

    def over(self) -> None:
        """Log the end, if it had begun."""
        if not self._reasons:
            return
        with self._lock:
            repeated, self._repeated, self._reasons = self._repeated, 0, set()
        self._log.info(self._ends, repeated=repeated)


def configure(*, level: str = "INFO", format_: str | None = None, process: str | None = None) -> None:
    """Log in one format, from this program and from the web server; `format_` is json or console.

    The name of a `process` goes into every line.

    NO_COLOR, as https://no-color.org defines it, is honoured.
    """
    has_terminal = sys.stderr.isatty()
    is_for_people = format_ == "console" or (format_ is None and has_terminal)
    has_colors = has_terminal and not os.environ.get("NO_COLOR")
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_for_people else "iso", utc=not is_for_people),
    ]
    renderers: list[structlog.typing.Processor] = (
        [_escape, structlog.dev.ConsoleRenderer(colors=has_colors, exception_formatter=structlog.dev.plain_traceback)]
        if is_for_people
        else [_tracebacks, structlog.processors.JSONRenderer(sort_keys=True)]
    )
    if process is not None:
        renderers.insert(0, partial(_add_process, process))
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structured": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {name: {"level": "WARNING"} for name in ("uvicorn", "httpx2", "httpcore2")},
        }
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _add_process(process: str, _: Any, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {"process": process, **entry}


def _escape(_: Any, __: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {
        name: printable(value) if isinstance(value, str) and name != "exception" else value
        for name, value in entry.items()
    }
