"""The simulator's own HTTP connection against servers that close connections or send unreadable responses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from projector.simulator.connection import Connection, Response, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\nProjector-Position: 7\r\nContent-Length: 2\r\n\r\n{}"


def post_twice(respond: Callable[[int], bytes], *, responses_per_connection: int) -> tuple[list[Response], list[bytes]]:
    """Post twice to a server that closes each connection after so many responses.

    Return the responses, and the bodies that the server received.
    """
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(responses_per_connection):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            received.append(await reader.readexactly(length))
            writer.write(respond(len(received)))
        writer.close()

    async def post() -> list[Response]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with Connection(f"http://127.0.0.1:{port}") as connection:
                return [await connection.post("/callback", body) for body in (b"first", b"second")]

    return asyncio.run(post()), received


def test_one_connection_carries_one_post_after_another() -> None:
    responses, received = post_twice(lambda _: OK, responses_per_connection=2)
    assert [(response.status, response.headers["projector-position"]) for response in responses] == [(200, "7")] * 2
    assert received == [b"first", b"second"]


def test_a_connection_that_the_server_has_closed_is_opened_again() -> None:
    responses, received = post_twice(lambda _: OK, responses_per_connection=1)
    assert [response.status for response in responses] == [200, 200]
    assert received == [b"first", b"second"]


def test_a_server_that_hangs_up_every_time_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="closed the connection"):
        post_twice(lambda _: b"", responses_per_connection=1)


@pytest.mark.parametrize(
    "content", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
def test_an_unreadable_response_is_reported_in_one_line(content: bytes) -> None:
    with pytest.raises(Unreachable, match=r"did not respond with HTTP/1\.1 and a Content-Length"):
        post_twice(lambda _: content, responses_per_connection=1)


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[::1"])
def test_an_invalid_address_is_reported_in_one_line(address: str) -> None:
    with pytest.raises(Unreachable, match="is not an address"):
        Connection(address)
