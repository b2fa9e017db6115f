"""The `projector` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from projector import __version__, logs
from projector.cli import events, forget, forward, quarantine, reconcile, replay, serve, simulate, status, verify
from projector.cli.errors import exit_status
from projector.event_store.sqlite import require_store
from projector.settings import WrongSetting, read_settings

log = structlog.get_logger("projector")

_COMMANDS = (serve, replay, reconcile, verify, status, quarantine, forget, simulate, events, forward)


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
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    logs.configure(level=settings.log_level, format_=settings.log_format)
    for name in settings.unknown_names:
        log.warning("ignoring an unknown setting", name=name)
    if options.needs_database and settings.database_path and getattr(options, "url", None) is None:
        _require_database(settings.database_path)
    status = int(options.run(options, settings))
    sys.stdout.flush()
    return status


def _require_database(path: str) -> None:
    if not Path(path).exists():
        raise WrongSetting(f"no database at {path}; set PROJECTOR_DATABASE_URL to the database of `serve`")
    require_store(path)
