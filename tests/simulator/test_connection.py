"""The simulator's own HTTP connection against servers that are not at their best."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from projector.simulator.connection import Answer, Connection, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\nProjector-Position: 7\r\nContent-Length: 2\r\n\r\n{}"


def post_twice(answer: Callable[[int], bytes], *, answers_per_connection: int) -> tuple[list[Answer], list[bytes]]:
    """Post twice to a server that hangs up after so many answers; return the answers and the bodies it took."""
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(answers_per_connection):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            taken.append(await reader.readexactly(length))
            writer.write(answer(len(taken)))
        writer.close()

    async def post() -> list[Answer]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with Connection(f"http://127.0.0.1:{port}") as connection:
                return [await connection.post("/callback", body) for body in (b"first", b"second")]

    return asyncio.run(post()), taken


def test_one_connection_carries_one_post_after_another() -> None:
    answers, taken = post_twice(lambda _: OK, answers_per_connection=2)
    assert [(one.status, one.headers["projector-position"]) for one in answers] == [(200, "7")] * 2
    assert taken == [b"first", b"second"]


def test_a_connection_that_the_server_closed_meanwhile_is_opened_anew() -> None:
    answers, taken = post_twice(lambda _: OK, answers_per_connection=1)
    assert [one.status for one in answers] == [200, 200]
    assert taken == [b"first", b"second"]


def test_a_server_that_hangs_up_every_time_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="hung up"):
        post_twice(lambda _: b"", answers_per_connection=1)


@pytest.mark.parametrize(
    "said", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
def test_an_answer_that_cannot_be_read_is_one_line(said: bytes) -> None:
    with pytest.raises(Unreachable, match=r"does not answer in HTTP/1\.1 with a Content-Length"):
        post_twice(lambda _: said, answers_per_connection=1)


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[::1"])
def test_what_is_no_address_is_one_line(address: str) -> None:
    with pytest.raises(Unreachable, match="is not an address"):
        Connection(address)
