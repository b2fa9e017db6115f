"""Output for people: results on stdout, notes about the command on stderr."""

import sys


def say(line: str) -> None:
    """Write a line of a result."""
    sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """Write a line about the command itself."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
