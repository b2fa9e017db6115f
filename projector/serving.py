"""The processes of one `serve`: what each of them runs, and how they are connected."""

import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from projector import logs
from projector.bootstrap import PROJECTIONS_PROCESS, Links, Role, create_server_app, run_projections
from projector.http.handoff import Handoff, open_channel
from projector.http.operations import PATHS as OPERATIONS
from projector.http.server import WebServer
from projector.processes.board import Board
from projector.processes.supervisor import STOP_SIGNALS, Process, Supervisor
from projector.processes.wakeup import Wakeup
from projector.settings import Settings, WrongSetting

_BACKLOG: Final = 2048


class Plan(NamedTuple):
    """What to serve: roles, the number of processes that answer queries, and listening sockets.

    Callbacks may have a port of their own.
    """

    settings: Settings
    roles: Sequence[Role]
    query_processes: int
    sockets: Sequence[socket.socket]
    callbacks_port: int | None


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens; with `shared`, other sockets may share its address. Raises WrongSetting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=shared)
    except OSError as error:
        raise WrongSetting(
            f"cannot listen on {host} port {port} ({error}); choose another with --host and --port"
        ) from None


def serve(plan: Plan, on_started: Callable[[], None], guard: Callable[[Callable[[], int]], int]) -> int:
    """Serve until a signal; return the exit status. A single role with a single process needs no supervisor.

    `guard` runs the work of each process, and returns its exit status, also for what it raises.

    Raises StoreUnavailable, ReadModelUnavailable and WrongSetting.
    """
    if len(plan.roles) == 1 and plan.query_processes == 1:
        app = create_server_app(plan.settings, plan.roles, Links(Board(())), plan.callbacks_port)
        WebServer(app, stop_on=STOP_SIGNALS, on_started=on_started).run(sockets=[*plan.sockets])
        return 0
    processes, board, sockets = _only_queries(plan) if len(plan.roles) == 1 else _all_roles(plan)
    supervisor = Supervisor(
        [process._replace(run=_guarded(process.run, guard)) for process in processes],
        board,
        prepare=partial(_configure_logs, plan.settings),
        on_stop=lambda: _close(sockets),
    )
    return supervisor.run(on_started)


class _Arrangement(NamedTuple):
    """Processes, what they share, and the sockets that the supervisor keeps open for them."""

    processes: Sequence[Process]
    board: Board
    sockets: Sequence[socket.socket]


def _all_roles(plan: Plan) -> _Arrangement:
    """Return a process that receives callbacks and accepts all connections, and those of the other roles."""
    names = _query_names(plan)
    board = Board(("callbacks", *names, PROJECTIONS_PROCESS))
    appended, projected = Wakeup(), [Wakeup() for _ in names]
    to_callbacks, to_queries = open_channel(), open_channel()
    here = {path.encode() for path in (*OPERATIONS, plan.settings.callback_path)}
    there = here if plan.callbacks_port is None else {path.encode() for path in OPERATIONS}
    callbacks_web = _Web(
        "callbacks",
        Links(board, appended=appended),
        plan.sockets,
        Handoff(to_callbacks[0], to_queries[1], lambda port, path: port != plan.callbacks_port and path not in here),
    )
    query_webs = [
        _Web(
            "queries",
            Links(board, woken=woken, query_processes=len(names)),
            (),
            Handoff(to_queries[0], to_callbacks[1], lambda _, path: path in there),
        )
        for woken in projected
    ]
    processes = [
        Process("callbacks", partial(_serve_web, plan, callbacks_web)),
        Process(PROJECTIONS_PROCESS, partial(_project, plan, Links(board, appended, projected)), stage=1),
        *(Process(name, partial(_serve_web, plan, web)) for name, web in zip(names, query_webs, strict=True)),
    ]
    return _Arrangement(processes, board, [*plan.sockets, *to_callbacks, *to_queries])


def _only_queries(plan: Plan) -> _Arrangement:
    """Return processes that share an address; each has a socket, which stays open while its process is replaced."""
    (checked,) = plan.sockets
    host, port = checked.getsockname()[:2]
    checked.close()
    names = _query_names(plan)
    board = Board(names)
    sockets = [listen(host, port, shared=True) for _ in names]
    webs = [_Web("queries", Links(board, query_processes=len(names)), [own], None) for own in sockets]
    processes = [Process(name, partial(_serve_web, plan, web)) for name, web in zip(names, webs, strict=True)]
    return _Arrangement(processes, board, sockets)


class _Web(NamedTuple):
    """What a process with a web server has of its own."""

    role: Role
    links: Links
    sockets: Sequence[socket.socket]
    handoff: Handoff | None


def _serve_web(plan: Plan, web: _Web, on_ready: Callable[[], None]) -> int:
    _close([unused for unused in plan.sockets if unused not in web.sockets])
    app = create_server_app(plan.settings, (web.role,), web.links, plan.callbacks_port)
    count = plan.query_processes + (len(plan.roles) > 1)
    server = WebServer(app, stop_on=(signal.SIGTERM,), on_started=on_ready, handoff=web.handoff, of=count)
    server.run(sockets=[*web.sockets])
    return 0


def _project(plan: Plan, links: Links, on_ready: Callable[[], None]) -> int:
    _close(plan.sockets)
    stopping = Wakeup()
    signal.signal(signal.SIGTERM, lambda *_: stopping.wake())
    run_projections(plan.settings, links, stopping, on_ready)
    return 0


def _query_names(plan: Plan) -> list[str]:
    if plan.query_processes == 1:
        return ["queries"]
    return [f"queries {number}" for number in range(1, plan.query_processes + 1)]


def _guarded(
    run: Callable[[Callable[[], None]], int], guard: Callable[[Callable[[], int]], int]
) -> Callable[[Callable[[], None]], int]:
    return lambda on_ready: guard(lambda: run(on_ready))


def _configure_logs(settings: Settings, process: str) -> None:
    logs.configure(level=settings.log_level, format_=settings.log_format, process=process)


def _close(sockets: Sequence[socket.socket]) -> None:
    for listening in sockets:
        listening.close()
