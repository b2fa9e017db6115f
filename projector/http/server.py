"""The web server of one process: it listens, or gets its connections from other processes."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp

from projector.http.handoff import Handoff, MovingProtocol, receive
from projector.http.protocol import MAX_CONNECTIONS, GuardedProtocol

_SHUTDOWN_TIMEOUT_S: Final = 10


class WebServer(uvicorn.Server):
    """Serves an application until a signal of `stop_on`; a second one stops it at once.

    It has its share of the connections if there are several web servers, `of` so many.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        stop_on: Sequence[signal.Signals],
        on_started: Callable[[], None],
        handoff: Handoff | None = None,
        of: int = 1,
    ) -> None:
        self._handoff = handoff
        self._on_started = on_started
        GuardedProtocol.max_connections = MAX_CONNECTIONS // of
        self._protocol = cast(Any, partial(MovingProtocol, handoff=handoff) if handoff else GuardedProtocol)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="on",
                http=self._protocol,
                timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
            )
        )
        for number in stop_on:
            signal.signal(number, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the exit status is 0 when a signal has stopped the server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._handoff and self.started:
            asyncio.get_running_loop().add_reader(self._handoff.arriving, self._take_over)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._handoff:
            asyncio.get_running_loop().remove_reader(self._handoff.arriving)
        await super().shutdown(sockets)

    def _take_over(self) -> None:
        """Serve a connection that another process has passed on."""
        assert self._handoff is not None
        if (arrival := receive(self._handoff.arriving)) is not None:
            connection, arrived = arrival
            task = asyncio.ensure_future(self._serve_connection(connection, arrived))
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)

    async def _serve_connection(self, connection: socket.socket, arrived: bytes) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(
                    config=self.config, server_state=self.server_state, app_state=self.lifespan.state, arrived=arrived
                ),
                connection,
            )
        except OSError:
            connection.close()  # the client is gone
