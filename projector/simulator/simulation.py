"""A simulation: traffic over many connections, then the check."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from projector.clock import now_ms
from projector.simulator.check import Difference, check
from projector.simulator.connection import Connection
from projector.simulator.life import Delivery, Life
from projector.simulator.options import Options
from projector.simulator.queries import require_no_other_groups
from projector.simulator.request import Refused, target
from projector.simulator.traffic import Traffic

_MAX_TRIES: Final = 10
_OK: Final = 200


class Report(NamedTuple):
    """The number of responses by status and by command, the time taken, and the differences if groups were checked.

    `refusal` is the reason why a callback was refused, which ended the simulation; None if all were acknowledged.
    """

    statuses: dict[int, int]
    commands: dict[str, int]
    seconds: float
    groups: int
    differences: list[Difference] | None
    refusal: str | None = None


async def simulate(
    options: Options,
    *,
    on_sent: Callable[[int, int], None] = lambda _, __: None,
    on_checked: Callable[[int, int], None] = lambda _, __: None,
    on_happened: Callable[[Life, Delivery], None] = lambda _, __: None,
) -> Report:
    """Send the traffic, up to the first refusal, and check the groups unless the options say not to.

    `on_sent` and `on_checked` are called with the number of callbacks sent, or groups checked, since the last call, and
    with the approximate total, and `on_happened` for everything that happens, whether a callback tells of it or not.

    Raises Unreachable and, before anything is sent, OtherGroups.
    """
    async with Connection(options.url):
        if not options.into_existing:
            await require_no_other_groups(options)
    traffic = Traffic(options, now_ms=now_ms(), on_happened=on_happened)
    sender = _Sender(options, lambda count: on_sent(count, traffic.total))
    began = time.monotonic()
    refusal = await _refusal(sender.send_all(traffic))
    seconds = time.monotonic() - began
    expected = traffic.expected
    differences = None
    if options.check and refusal is None:
        differences = await check(
            options,
            expected,
            position=sender.position,
            progress=lambda count: on_checked(count, len(expected)),
        )
    return Report(dict(sender.statuses), dict(sender.commands), seconds, len(expected), differences, refusal)


async def _refusal(sending: Awaitable[None]) -> str | None:
    """Return the first reason why a callback was refused, None if all were acknowledged. Raises Unreachable."""
    try:
        await sending
    except ExceptionGroup as failures:
        first = failures.exceptions[0]
        if not isinstance(first, Refused):
            raise first from failures
        return str(first)
    return None


class _Sender:
    def __init__(self, options: Options, on_response: Callable[[int], None]) -> None:
        self._options = options
        self._on_response = on_response
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

    async def _send_in_order(self, connection: Connection, sequences: Iterator[Iterator[Delivery]]) -> None:
        for sequence in sequences:
            await self._send(connection, sequence)

    async def _send(self, connection: Connection, callbacks: Iterator[Delivery]) -> None:
        for delivery in callbacks:
            await self._pace()
            for _ in range(_MAX_TRIES):
                request = target(self._options, delivery.command, delivery.platform)
                response = await connection.post(request, delivery.body)
                if response.status != 503:
                    break
                await asyncio.sleep(int(response.headers.get("retry-after", "1")))
            self.statuses[response.status] += 1
            self.commands[delivery.command] += 1
            self.position = max(self.position, int(response.headers.get("projector-position", "0")))
            if response.status != _OK:
                raise Refused(response)
            self._on_response(1)

    async def _pace(self) -> None:
        if self._options.rate:
            self._next_at = max(self._next_at, time.monotonic() - 1) + 1 / self._options.rate
            await asyncio.sleep(self._next_at - time.monotonic())
