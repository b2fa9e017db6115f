"""Whatever is sent, and however much, the server responds, stays within its limits, and continues."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from projector.http.ingest import MAX_BUFFERED_BODY_BYTES
from projector.http.protocol import MAX_CONNECTIONS
from tests.kinds import on_postgresql
from tests.processes.traffic import callback
from tests.running import assert_no_traceback, run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import Server

pytestmark = pytest.mark.slow  # every test here starts processes

MEBIBYTE = 1024 * 1024
MAX_BYTES = 400 * MEBIBYTE
"""Of all processes together, of which each counts what they share."""

FULL = "Group.CallbackAfterGroupFull"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "events.db", PROJECTOR_READ_TOKENS="") as running:
        yield running
        assert_no_traceback(running)


def peak(server: Server) -> int:
    """Return the peak memory of all processes of the server in bytes."""
    return sum(map(_peak, (server.process.pid, *server.pids().values())))


def _peak(pid: int) -> int:
    peak_kb = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert peak_kb is not None
    return int(peak_kb[1]) * 1024


def head(server: Server, length: int) -> bytes:
    target = f"/callback?SdkAppid={server.app_id}&CallbackCommand={FULL}"
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


async def crowd(server: Server, size: int, sent: bytes) -> list[bytes]:
    """Return the responses to `size` connections that send the same bytes and stay open until all have a response."""
    host, port = server.url.removeprefix("http://").split(":")

    async def exchange(all_sent: asyncio.Barrier) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        answered = b""
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(sent)
            async with asyncio.timeout(2):
                await writer.drain()
                answered = await reader.read(65536)
        await all_sent.wait()
        writer.close()
        return answered

    all_sent = asyncio.Barrier(size)
    return await asyncio.gather(*(exchange(all_sent) for _ in range(size)))


def test_bodies_that_are_not_finished_are_held_up_to_a_limit_and_the_next_are_taken(server: Server) -> None:
    unfinished = head(server, MEBIBYTE) + b" " * (MEBIBYTE - 1)
    responses = asyncio.run(crowd(server, 60, unfinished))
    refused = [response for response in responses if response.startswith(b"HTTP/1.1 503")]
    assert len(refused) >= 60 - MAX_BUFFERED_BODY_BYTES // (MEBIBYTE - 1) - 1
    assert all(b"retry-after" in response for response in refused)
    assert server.post(callback(1, 1)).status_code == 200
    assert peak(server) < MAX_BYTES


def test_heads_that_are_not_finished_are_held_up_to_a_limit(server: Server) -> None:
    asyncio.run(crowd(server, 900, head(server, 1)[:-2] + b"X: " + b"x" * 16_000))
    assert server.post(callback(1, 1)).status_code == 200
    assert peak(server) < MAX_BYTES


def test_a_callback_gets_through_a_crowd_of_silent_connections(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * MAX_CONNECTIONS), hard))
    with contextlib.ExitStack() as crowd:
        crowd.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for number in range(MAX_CONNECTIONS + 500):
            silent = crowd.enter_context(socket.create_connection((host, int(port)), timeout=30))
            if number % 2:
                silent.sendall(b"POST /callback HTTP/1.1\r\n")
        with httpx2.Client(timeout=30) as newcomer:
            assert replace(server, client=newcomer).post(callback(1, 1)).status_code == 200
    assert peak(server) < MAX_BYTES


def test_callbacks_as_large_as_are_taken_are_recorded_projected_and_shown_in_pages_that_fit(server: Server) -> None:
    def members(start: int) -> dict[str, Any]:
        listed = [{"Member_Account": f"member {start + number}"} for number in range(25_000)]
        return {"CallbackCommand": "Group.CallbackAfterNewMemberJoin", "GroupId": "g", "NewMemberList": listed}

    def card(number: int) -> dict[str, Any]:
        return {
            "CallbackCommand": "Group.CallbackAfterMemberFieldChanged",
            "GroupId": "g",
            "Member_Account": f"member {number}",
            "NameCard": "x" * (MEBIBYTE - 300),
        }

    sent = [json.dumps(body).encode() for body in (*map(members, (0, 25_000, 50_000)), *map(card, range(30)))]
    assert max(map(len, sent)) > 0.9 * MEBIBYTE
    commands = ["Group.CallbackAfterNewMemberJoin"] * 3 + ["Group.CallbackAfterMemberFieldChanged"] * 30
    for command, body in zip(commands, sent, strict=True):
        assert server.post(body, command=command).status_code == 200
    while server.get("/v1/groups", wait_for=len(sent)).status_code == 503:
        pass
    assert server.group("g")["member_count"] == 75_000
    shown, address = [], "/v1/events?limit=1000"
    while address:
        page = server.get(address)
        assert len(page.content) < 8 * MEBIBYTE
        shown += [event["position"] for event in page.json()["events"]]
        link = re.search("<(.*)>", page.headers.get("Link", ""))
        address = link[1] if link else ""
    assert shown == list(range(1, len(sent) + 1))
    responses = asyncio.run(crowd(server, 60, b"GET /v1/events?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert any(response.startswith(b"HTTP/1.1 200") for response in responses)
    assert peak(server) < MAX_BYTES


@pytest.mark.parametrize(
    "body",
    [
        b'{"CallbackCommand":"%s","GroupId":' % FULL.encode() + b"[" * 500_000,
        b'{"CallbackCommand":"%s","GroupId":' % FULL.encode() + b"9" * 1_000_000 + b"}",
        b'{"CallbackCommand":"%s","GroupId":"g","EventTime":1e400}' % FULL.encode(),
    ],
    ids=["depth", "digits", "exponent"],
)
def test_documents_that_are_too_deep_and_numbers_that_are_too_large_are_kept_in_the_quarantine(
    server: Server, body: bytes
) -> None:
    for _ in range(5):
        assert server.post(body, command=FULL).status_code == 400
    assert "projector_quarantine 1.0" in server.get("/metrics").text


def test_made_up_commands_fill_neither_the_metrics_nor_the_memory(server: Server) -> None:
    for number in range(150):
        command = f"Made.Up{number}" + "x" * (number % 3 * 400_000)
        assert server.post({"CallbackCommand": command}, command="").status_code == 200
    metrics = server.get("/metrics").text
    assert len(metrics) < 20_000
    assert 'projector_ignored_callbacks_total{command="(other)"}' in metrics
    assert peak(server) < MAX_BYTES


@pytest.mark.parametrize(
    "query",
    [
        *(f"/v1/groups?limit={limit}" for limit in ("0", "-1", "1001", "1e3", "9" * 5_000, "")),
        *(f"/v1/groups?cursor={cursor}" for cursor in ("x", "%00", "A" * 5_000, "eyJhIjoxfQ", "WzEsMl0", "bnVsbA==")),
        "/v1/events?cursor=WyJldmVudHMiLC0xXQ",
        "/v1/events?after=" + "9" * 40,
        "/v1/groups/g/members?at=" + "9" * 40,
        "/v1/groups?wait_for=-1",
        f"/v1/groups/{'x' * 15_000}",
    ],
)
def test_queries_beyond_every_limit_are_refused_in_a_few_words(town: Server, query: str) -> None:
    response = town.get(query)
    assert 400 <= response.status_code < 500
    assert len(response.content) < 1_000 + len(query)


@pytest.mark.parametrize("prefix", ["%", "_", "\\", "*", "[a-z]", "'", '"', "%_" * 2_000, "\x00", "\ud7ff", "a\uffff"])
def test_a_prefix_is_no_pattern(town: Server, prefix: str) -> None:
    assert town.get("/v1/groups", q=prefix).json()["groups"] == []


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("town") / "events.db") as running:
        running.post({"CallbackCommand": "Group.CallbackAfterCreateGroup", "GroupId": "g", "Name": "name"})
        running.get("/v1/groups", wait_for=1)
        yield running
        assert_no_traceback(running)


def test_a_quarantine_that_is_full_refuses_what_it_cannot_keep_until_there_is_room(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    assert not on_postgresql()
    with serving(database, PROJECTOR_QUARANTINE_CALLBACKS="3") as server:
        assert [server.post(b"not JSON %d" % number).status_code for number in range(5)] == [400, 400, 400, 503, 503]
        assert server.post(b"not JSON 1").status_code == 400, "it is there already"
        assert server.post(callback(1, 1)).status_code == 200
        assert run_cli(database, "quarantine", "drop", "1", "2").returncode == 0
        assert [server.post(b"not JSON %d" % number).status_code for number in (3, 4, 5)] == [400, 400, 503]
        assert server.logged(0, result="unavailable")[-1]["reason"].startswith("the quarantine is full: 3")
