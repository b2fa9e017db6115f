"""The `projector` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from projector import __version__, logs
from projector.cli import events, forget, quarantine, replay, serve, simulate, status, verify
from projector.cli.output import note
from projector.event_store import StoreUnavailable
from projector.event_store.sqlite import require_store
from projector.forgetting import TracesRemain
from projector.read_model import ReadModelUnavailable
from projector.replay.replay import CannotReplay
from projector.settings import WrongSetting, read_settings

log = structlog.get_logger("projector")

_COMMANDS = (serve, replay, verify, status, quarantine, forget, simulate, events)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return its exit status: 0 for success, 1 for a problem with the data, 2 if it could not run."""
    parser = argparse.ArgumentParser(
        prog="projector",
        description="Group state for Tencent Cloud Chat, projected from its webhook callbacks.",
        epilog="Settings are environment variables; see docs/settings.md.",
    )
    parser.add_argument("--version", action="version", version=f"projector {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(os.environ)
        logs.configure(level=settings.log_level, format_=settings.log_format)
        for name in settings.unknown_names:
            log.warning("ignoring an unknown setting", name=name)
        if options.needs_database and settings.database_path and getattr(options, "url", None) is None:
            _require_database(settings.database_path)
        status = int(options.run(options, settings))
        sys.stdout.flush()
    except (WrongSetting, StoreUnavailable, ReadModelUnavailable, CannotReplay, TracesRemain) as error:
        note(f"projector: {error}")
        return 2
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        _discard_output()
        note(f"projector: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _require_database(path: str) -> None:
    if not Path(path).exists():
        raise WrongSetting(f"no database at {path}; set PROJECTOR_DATABASE_URL to the database of `serve`")
    require_store(path)


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that Python does not fail again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
