"""Output for people: results on stdout, notes about the command on stderr."""

import sys

from projector.printable import printable


def say(line: str) -> None:
    """Write a line of a result."""
    sys.stdout.write(printable(line) + "\n")


def note(line: str) -> None:
    """Write a line about the command itself."""
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()
