"""Types of command-line arguments."""

import argparse
from collections.abc import Callable
from typing import Final

MAX_WHOLE_NUMBER: Final = 2**63 - 1
MAX_PORT: Final = 65535


def whole_number(minimum: int, maximum: int = MAX_WHOLE_NUMBER) -> Callable[[str], int]:
    """Return the type of whole numbers within these bounds."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and minimum <= int(text) <= maximum):
            bounds = f"from {minimum}" if maximum == MAX_WHOLE_NUMBER else f"from {minimum} to {maximum}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return int(text)

    return read


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 address is in brackets."""
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), whole_number(0, MAX_PORT)(port)
