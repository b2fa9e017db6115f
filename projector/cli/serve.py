"""`projector serve`: receive callbacks, project them, and answer queries."""

from __future__ import annotations

import argparse
import contextlib
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, get_args

import structlog

from projector import __version__
from projector.bootstrap import Role
from projector.cli.arguments import MAX_PORT, address, whole_number
from projector.cli.errors import exit_status
from projector.serving import Plan, listen, serve
from projector.settings import Settings, WrongSetting, is_loopback

_ROLES: Final[tuple[Role, ...]] = get_args(Role)
_MAX_PROCESSES: Final = 64
_MAX_OPEN_FILES: Final = 4_096

log = structlog.get_logger("projector")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="receive callbacks, project them, and answer queries")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=whole_number(0, MAX_PORT),
        default=8000,
        help="port to listen on, 0 for any (default: %(default)s)",
    )
    parser.add_argument(
        "--callbacks-address",
        type=address,
        metavar="HOST:PORT",
        help="receive callbacks, and nothing else, at this address; everything else is at --host and --port",
    )
    parser.add_argument(
        "--queries-address",
        type=address,
        metavar="HOST:PORT",
        help="serve everything but callbacks at this address; callbacks are received at --host and --port",
    )
    parser.add_argument("--only", choices=_ROLES, help="give this process one role only")
    parser.add_argument(
        "--processes",
        type=whole_number(1, _MAX_PROCESSES),
        default=1,
        metavar="N",
        help="answer queries from so many processes (default: %(default)s)",
    )
    parser.add_argument("--insecure", action="store_true", help="allow a public address without tokens")
    parser.set_defaults(run=run, needs_database=False)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; then answer the requests that were accepted, and return 0."""
    roles: tuple[Role, ...] = (options.only,) if options.only else _ROLES
    if "callbacks" in roles and settings.sdk_app_id is None:
        raise WrongSetting("PROJECTOR_SDK_APP_ID is not set; set it to the SDKAppID of your app in the console")
    if options.processes > 1 and "queries" not in roles:
        raise WrongSetting(f"--only {options.only} answers no queries; leave out --processes")
    addresses = _addresses(options, roles)
    if not options.insecure:
        _require_tokens(addresses, settings, roles)
    _raise_file_limit()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(listen(*address)) for address in addresses.distinct()]
        bound = [listening.getsockname()[:2] for listening in sockets]
        if len({port for _, port in bound}) < len(bound):
            raise WrongSetting("callbacks and queries have the same port; give one of them another")
        plan = Plan(settings, roles, options.processes, sockets, bound[1][1] if len(bound) > 1 else None)
        status = serve(plan, lambda: _say_serving(bound, roles, settings), guard=exit_status)
    if status == 0:
        log.info("stopped")
    return status


def _say_serving(bound: Sequence[tuple[str, int]], roles: tuple[Role, ...], settings: Settings) -> None:
    _warn_of_readers(settings.database_path)
    address, *others = [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in bound]
    log.info(
        "serving",
        address=address,
        **({"callbacks_address": others[0]} if others else {}),
        roles=", ".join(roles),
        readers=", ".join(token.name for token in settings.read_tokens) or "anyone",
        version=__version__,
        stop_with="Ctrl-C",
    )


def _raise_file_limit() -> None:
    """Raise the soft limit of open files for all connections, within the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _warn_of_readers(database_path: str) -> None:
    if database_path and Path(database_path).exists() and Path(database_path).stat().st_mode & 0o077:
        log.warning("the database can be read by other users", path=database_path)


class _Addresses(NamedTuple):
    """The addresses of callbacks and of everything else; `separate` if they differ."""

    callbacks: tuple[str, int]
    queries: tuple[str, int]
    separate: bool

    def distinct(self) -> list[tuple[str, int]]:
        return [self.queries, self.callbacks] if self.separate else [self.queries]


def _addresses(options: argparse.Namespace, roles: tuple[Role, ...]) -> _Addresses:
    default = (options.host, options.port)
    callbacks, queries = options.callbacks_address, options.queries_address
    if (callbacks or queries) and "callbacks" not in roles:
        raise WrongSetting(
            f"--only {options.only} receives no callbacks; leave out --callbacks-address and --queries-address"
        )
    return _Addresses(callbacks or default, queries or default, separate=bool(callbacks or queries))


def _require_tokens(addresses: _Addresses, settings: Settings, roles: tuple[Role, ...]) -> None:
    missing = {}
    if "callbacks" in roles and not settings.callback_tokens and not is_loopback(addresses.callbacks[0]):
        missing["PROJECTOR_CALLBACK_TOKEN"] = addresses.callbacks[0]
    if not settings.read_tokens and not is_loopback(addresses.queries[0]):
        missing["PROJECTOR_READ_TOKENS"] = addresses.queries[0]
    if missing:
        names, are, it = " and ".join(missing), *(("are", "both") if len(missing) > 1 else ("is", "it"))
        raise WrongSetting(
            f"{next(iter(missing.values()))} is not a loopback address, and {names} {are} not set;"
            f" set {it}, listen on 127.0.0.1, or pass --insecure"
        )
