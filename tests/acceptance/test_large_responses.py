"""Large responses share a number of bytes; any single response can be sent."""

from __future__ import annotations

import asyncio
from typing import Any

from projector.http.conditional_response import ConditionalResponse
from projector.http.large_responses import MAX_SENDING_BYTES, PIECE_BYTES, LargeResponses


async def receive() -> Any:
    raise AssertionError


class Client:
    """A client that reads nothing until it is told to."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.status = 0
        self.received = 0

    async def take(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        await self.reads.wait()
        self.received += len(message.get("body", b""))


def test_a_response_larger_than_the_limit_is_sent_if_it_is_the_only_one_and_else_refused() -> None:
    async def scenario() -> list[tuple[int, bool]]:
        responses, scope = LargeResponses(), {"type": "http", "method": "GET", "headers": []}
        clients = [Client() for _ in range(3)]
        sizes = [MAX_SENDING_BYTES + 1, PIECE_BYTES + 1, PIECE_BYTES]
        sending = []
        for client, size in zip(clients, sizes, strict=True):
            response = ConditionalResponse('"etag"', b"x" * size, ())
            sending.append(asyncio.create_task(responses.send(response, scope, receive, client.take)))
            await asyncio.sleep(0)
        for client in clients:
            client.reads.set()
        await asyncio.gather(*sending)
        return [(client.status, client.received == size) for client, size in zip(clients, sizes, strict=True)]

    assert asyncio.run(scenario()) == [(200, True), (503, False), (200, True)]
