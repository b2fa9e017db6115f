"""The simulation: traffic through many connections, then the check."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode

from projector.callbacks import sign
from projector.simulator.check import Difference, check
from projector.simulator.connection import Connection
from projector.simulator.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from projector.simulator.life import Told
    from projector.simulator.options import Options

_MAX_TRIES: Final = 10


class Report(NamedTuple):
    """What was answered, by status and by command, in how many seconds; and, if checked, what is shown wrongly."""

    statuses: dict[int, int]
    commands: dict[str, int]
    seconds: float
    groups: int
    differences: list[Difference] | None


async def simulate(
    options: Options,
    *,
    sending: Callable[[int, int], None] = lambda _, __: None,
    checking: Callable[[int, int], None] = lambda _, __: None,
) -> Report:
    """Send the traffic, and check what is shown of it if that is asked for.

    `sending` and `checking` are told how many more callbacks are answered, or groups checked, and about how many there
    are. Raises Unreachable.
    """
    traffic = Traffic(options, now_ms=time.time_ns() // 1_000_000)
    sender = _Sender(options, lambda count: sending(count, traffic.total))
    began = time.monotonic()
    try:
        await sender.send_all(traffic)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    seconds = time.monotonic() - began
    expected = traffic.expected
    differences = None
    if options.check:
        differences = await check(
            options.url,
            options.read_token,
            expected,
            position=sender.position,
            progress=lambda count: checking(count, len(expected)),
        )
    return Report(dict(sender.statuses), dict(sender.commands), seconds, len(expected), differences)


class _Sender:
    def __init__(self, options: Options, answered: Callable[[int], None]) -> None:
        self._options = options
        self._answered = answered
        self._next_at = time.monotonic()
        self.statuses: Counter[int] = Counter()
        self.commands: Counter[str] = Counter()
        self.position = 0

    async def send_all(self, traffic: Traffic) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as senders:
            connections = [
                await stack.enter_async_context(Connection(self._options.url)) for _ in range(self._options.connections)
            ]
            timed = traffic.timed()
            first = [senders.create_task(self._send(connection, timed)) for connection in connections]
            await asyncio.gather(*first)
            untimed = traffic.untimed()
            for connection in connections:
                senders.create_task(self._send_in_order(connection, untimed))

    async def _send_in_order(self, connection: Connection, sequences: Iterator[Iterator[Told]]) -> None:
        for sequence in sequences:
            await self._send(connection, sequence)

    async def _send(self, connection: Connection, callbacks: Iterator[Told]) -> None:
        for told in callbacks:
            await self._pace()
            for _ in range(_MAX_TRIES):
                answer = await connection.post(self._target(told), told.body)
                if answer.status != 503:
                    break
                await asyncio.sleep(int(answer.headers.get("retry-after", "1")))
            self.statuses[answer.status] += 1
            self.commands[told.command] += 1
            self.position = max(self.position, int(answer.headers.get("projector-position", "0")))
            self._answered(1)

    async def _pace(self) -> None:
        if self._options.rate:
            self._next_at = max(self._next_at, time.monotonic() - 1) + 1 / self._options.rate
            await asyncio.sleep(self._next_at - time.monotonic())

    def _target(self, told: Told) -> str:
        query = {
            "CallbackCommand": told.command,
            "ClientIP": "203.0.113.7",
            "OptPlatform": told.platform,
            "SdkAppid": str(self._options.sdk_app_id),
            "contenttype": "json",
        }
        if self._options.token:
            now = int(time.time())
            query |= {"RequestTime": str(now), "Sign": sign(self._options.token, now)}
        return f"{self._options.callback_path}?{urlencode(query)}"
