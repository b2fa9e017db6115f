"""What a connection sends in one turn of the event loop leaves together and in order; nothing is held back longer."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from projector.http.gathered_writes import MAX_GATHERED_BYTES, GatheredWrites

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


class Connection(asyncio.Transport):
    """A transport that notes the system calls it would make."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []
        self.closed = False

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.calls.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 7


def told(story: Callable[[GatheredWrites], Coroutine[Any, Any, None]]) -> Connection:
    """Return the connection after a story, and one more turn of the event loop."""
    connection = Connection()

    async def run() -> None:
        await story(GatheredWrites(connection, asyncio.get_running_loop()))
        await asyncio.sleep(0)

    asyncio.run(run())
    return connection


def test_a_head_and_a_body_are_sent_together() -> None:
    async def story(writes: GatheredWrites) -> None:
        writes.write(b"head,")
        writes.write(b"body")

    assert told(story).calls == [b"head,body"]


def test_a_response_in_parts_is_sent_part_by_part() -> None:
    async def story(writes: GatheredWrites) -> None:
        for part in (b"1", b"2", b"3"):
            writes.write(part)
            await asyncio.sleep(0)

    assert told(story).calls == [b"1", b"2", b"3"]


def test_what_is_large_is_not_held_back() -> None:
    async def story(writes: GatheredWrites) -> None:
        writes.write(b"head")
        writes.write(b"x" * MAX_GATHERED_BYTES)
        writes.write(b"rest")

    assert [len(call) for call in told(story).calls] == [MAX_GATHERED_BYTES + 4, 4]


def test_closing_sends_the_rest_first() -> None:
    async def story(writes: GatheredWrites) -> None:
        writes.write(b"last")
        writes.close()

    connection = told(story)
    assert (connection.calls, connection.closed) == ([b"last"], True)


def test_a_connection_that_is_passed_on_at_once_has_sent_the_last_response() -> None:
    async def story(writes: GatheredWrites) -> None:
        writes.write(b"last")
        assert writes.get_write_buffer_size() == 7
        writes.abort()

    connection = told(story)
    assert (connection.calls, connection.closed) == ([b"last"], True)


@pytest.mark.parametrize("runner", [asyncio.Runner(), asyncio.Runner(loop_factory=uvloop.new_event_loop)])
def test_a_connection_that_is_lost_before_the_turn_ends_disturbs_nobody(runner: asyncio.Runner) -> None:
    errors: list[Any] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        GatheredWrites(transport, loop).write(b"unsent")
        transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)
        theirs.close()

    with runner:
        runner.run(story())
    assert errors == []
