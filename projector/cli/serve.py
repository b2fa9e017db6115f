"""`projector serve`: receive callbacks, keep the projections, answer questions."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import resource
import signal
import socket
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

import structlog
import uvicorn

from projector import __version__
from projector.bootstrap import Role, create_server_app
from projector.cli.arguments import whole_number
from projector.http.protocol import GuardedProtocol
from projector.settings import Settings, WrongSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

_ROLES: Final[tuple[Role, ...]] = get_args(Role)
_BACKLOG: Final = 2048
_LAST_PORT: Final = 65535
_LAST_ANSWERS_S: Final = 10
_MAX_FILES: Final = 4_096

log = structlog.get_logger("projector")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("serve", help="receive callbacks, keep the projections, answer questions")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=whole_number(0, _LAST_PORT),
        default=8000,
        help="port to listen on, 0 for any (default: %(default)s)",
    )
    parser.add_argument(
        "--callbacks-address",
        type=_address,
        metavar="HOST:PORT",
        help="receive callbacks here and nothing else; all else is then at --host and --port",
    )
    parser.add_argument(
        "--queries-address",
        type=_address,
        metavar="HOST:PORT",
        help="all but callbacks here; callbacks are then received at --host and --port",
    )
    parser.add_argument("--only", choices=_ROLES, help="serve one part in this process")
    parser.add_argument("--insecure", action="store_true", help="allow a public address without tokens")
    parser.set_defaults(run=run, needs_database=False)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C, then answer what was accepted and return 0."""
    parts: tuple[Role, ...] = (options.only,) if options.only else _ROLES
    if "callbacks" in parts and settings.sdk_app_id is None:
        raise WrongSetting("PROJECTOR_SDK_APP_ID is not set; set it to the SDKAppID of your app in the console")
    wanted = _wanted(options, parts)
    if not options.insecure:
        _require_tokens(wanted, settings, parts)
    _allow_files()
    with contextlib.ExitStack() as held:
        listening = [held.enter_context(_listen(*address)) for address in wanted.distinct()]
        addresses = [one.getsockname()[:2] for one in listening]
        if len({port for _, port in addresses}) < len(addresses):
            raise WrongSetting(
                "callbacks and questions are to have addresses of their own, on the same port: change one"
            )
        server = _server(create_server_app(settings, parts, addresses[1][1] if len(addresses) > 1 else None))
        address, *others = [
            f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host, port in addresses
        ]
        readers = ", ".join(one.name for one in settings.read_tokens) or "anybody"
        log.info(
            "serving",
            address=address,
            **({"callbacks_address": others[0]} if others else {}),
            parts=", ".join(parts),
            readers=readers,
            version=__version__,
            stop_with="Ctrl-C",
        )
        server.run(sockets=listening)
    log.info("stopped")
    return 0


def _allow_files() -> None:
    """Allow as many open files as connections may take, as far as that is up to us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT; IPv6 addresses stand in brackets."""
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), whole_number(0, _LAST_PORT)(port)


class _Wanted(NamedTuple):
    """Where callbacks are to be received, and where all else is to be answered."""

    callbacks: tuple[str, int]
    queries: tuple[str, int]
    apart: bool

    def distinct(self) -> list[tuple[str, int]]:
        return [self.queries, self.callbacks] if self.apart else [self.queries]


def _wanted(options: argparse.Namespace, parts: tuple[Role, ...]) -> _Wanted:
    usual = (options.host, options.port)
    callbacks, queries = options.callbacks_address, options.queries_address
    if (callbacks or queries) and "callbacks" not in parts:
        raise WrongSetting(f"with --only {options.only} there are no callbacks to receive at an address of their own")
    return _Wanted(callbacks or usual, queries or usual, apart=bool(callbacks or queries))


def _require_tokens(wanted: _Wanted, settings: Settings, parts: tuple[Role, ...]) -> None:
    missing = {}
    if "callbacks" in parts and not settings.callback_tokens and not _is_loopback(wanted.callbacks[0]):
        missing["PROJECTOR_CALLBACK_TOKEN"] = wanted.callbacks[0]
    if not settings.read_tokens and not _is_loopback(wanted.queries[0]):
        missing["PROJECTOR_READ_TOKENS"] = wanted.queries[0]
    if missing:
        raise WrongSetting(
            f"{next(iter(missing.values()))} is not a loopback address and {' and '.join(missing)} is not set;"
            " set it, listen on 127.0.0.1, or pass --insecure"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise WrongSetting(f"cannot listen on {host} port {port} ({error}); choose with --host and --port") from None


def _server(app: ASGIApp) -> _Server:
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            http=GuardedProtocol,
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    return server


class _Server(uvicorn.Server):
    """The server, for which a signal to stop is an order carried out and not a death: the exit status is 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
