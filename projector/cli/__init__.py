"""The `projector` command."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from projector import __version__, logs
from projector.cli import events, forget, quarantine, replay, serve, simulate, status, verify
from projector.event_store import StoreUnavailable
from projector.read_model import ReadModelUnavailable
from projector.replay.replay import CannotReplay
from projector.settings import WrongSetting, read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = (serve, replay, verify, status, quarantine, forget, simulate, events)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 well, 1 something is wrong with the data, 2 it could not run."""
    parser = argparse.ArgumentParser(
        prog="projector",
        description="True group rosters from Tencent Cloud Chat callbacks.",
        epilog="Settings are environment variables; see docs/settings.md.",
    )
    parser.add_argument("--version", action="version", version=f"projector {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    options = parser.parse_args(arguments)
    logs.configure()
    try:
        settings = read_settings(os.environ)
        if options.needs_database and settings.database_path and not Path(settings.database_path).exists():
            raise WrongSetting(
                f"there is no database at {settings.database_path}; set PROJECTOR_DATABASE_URL to that of `serve`"
            )
        status = int(options.run(options, settings))
        sys.stdout.flush()
    except (WrongSetting, StoreUnavailable, ReadModelUnavailable, CannotReplay) as error:
        print(f"projector: {error}", file=sys.stderr)  # noqa: T201 - this is what a person reads
        return 2
    except BrokenPipeError:
        _let_go_of_output()
        return 1
    except OSError as error:
        _let_go_of_output()
        print(f"projector: {error.strerror or error}", file=sys.stderr)  # noqa: T201 - as above
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _let_go_of_output() -> None:
    """Have the rest of it go nowhere, lest Python try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
