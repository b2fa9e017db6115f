"""Arguments of commands, checked as they are read, so that a wrong one is one clear line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WHOLE_NUMBER: Final = 2**63 - 1


def whole_number(least: int, most: int = MAX_WHOLE_NUMBER) -> Callable[[str], int]:
    """Return a reader of whole numbers within these bounds."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            bounds = f"from {least}" if most == MAX_WHOLE_NUMBER else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return int(text)

    return read


def share(text: str) -> float:
    """Read a share from 0 to 1."""
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return found
