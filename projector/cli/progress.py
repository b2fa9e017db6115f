"""The progress of long work, on stderr: a bar on a terminal, lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Final, Self

from tqdm import tqdm

from projector.cli.output import note

_LINE_EVERY_S: Final = 5.0


class Progress:
    """Counts the items that are done, out of a total, while its context is entered."""

    def __init__(self, label: str, unit: str, total: int) -> None:
        self._label, self._unit, self._total = label, unit, total
        self._has_bar = sys.stderr.isatty()
        self._bar = tqdm(desc=label, unit=f" {unit}", total=total, disable=not self._has_bar)
        self._done = 0
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if not self._has_bar:
            self._print_line()

    def advance(self, count: int) -> None:
        self._done += count
        self._bar.update(count)
        if not self._has_bar and time.monotonic() - self._last_line > _LINE_EVERY_S:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        rate = self._done / max(self._last_line - self._began, 1e-9)
        left_s = (self._total - self._done) / rate if rate else 0
        left = f", {left_s:.0f} s left" if left_s >= 1 else ""
        line = f"{self._label}: {self._done} of {self._total} {self._unit}, {rate:,.0f} a second{left}"
        note(line)
