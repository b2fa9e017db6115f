"""A real server process on a real socket, and the few requests tests make of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import httpx2

from tests.kinds import on_postgresql, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SDK_APP_ID = 1400000000


def environment(database: Path, **settings: str) -> dict[str, str]:
    """The environment of a `projector` process, free of the developer's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PROJECTOR_", "CIPHER_"))}
    return kept | {
        "PROJECTOR_SDK_APP_ID": str(SDK_APP_ID),
        "PROJECTOR_DATABASE_URL": url_of(database),
        **({"PROJECTOR_SPOOL_PATH": f"{database}.spool"} if on_postgresql() else {}),
        "PYTHONWARNINGS": "error",
        **settings,
    }


def run_cli(database: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a `projector` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "projector", *arguments],
        env=environment(database, **settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


def start_cli(database: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start a `projector` command, whose output is not read."""
    return subprocess.Popen(
        [sys.executable, "-m", "projector", *arguments],
        env=environment(database, **settings),
        stdout=subprocess.DEVNULL,
        text=True,
    )


@dataclass
class Server:
    """A `projector serve` process. Its log lines gather in `log` as they come."""

    process: subprocess.Popen[str]
    url: str
    log: list[dict[str, Any]]
    client: httpx2.Client
    reader: threading.Thread
    token: str | None = None
    app_id: int = SDK_APP_ID
    raw_log: list[str] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def logged(self, after: int, **fields: Any) -> list[dict[str, Any]]:
        """Return the log lines with these fields after the first `after` lines, as soon as there are any."""

        def matching() -> list[dict[str, Any]]:
            return [line for line in self.log[after:] if fields.items() <= line.items()]

        with self.news:
            assert self.news.wait_for(matching, timeout=30), f"nothing was logged with {fields}"
        return matching()

    def post(
        self,
        body: Mapping[str, Any] | bytes,
        *,
        command: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Post a callback as the vendor does; the command is the body's unless given."""
        if command is None and not isinstance(body, bytes):
            command = body.get("CallbackCommand")
        named = {
            "CallbackCommand": command or "",
            "ClientIP": "127.0.0.1",
            "OptPlatform": "RESTAPI",
            "SdkAppid": str(self.app_id),
            "contenttype": "json",
        }
        content = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
        return self.client.post(
            f"{self.url}/callback?{urlencode({**named, **(query or {})})}", content=content, headers=dict(headers or {})
        )

    def get(self, path: str, **parameters: str | int) -> httpx2.Response:
        """Ask a question; `path` is sent as it is."""
        return self.client.get(f"{self.url}{path}{'?' + urlencode(parameters) if parameters else ''}")

    def group_path(self, group_id: str, *more: str) -> str:
        """The path of a group's route, ids percent-encoded."""
        return "/".join(["/v1/groups", *(quote(part, safe="") for part in (group_id, *more))])

    def group(self, group_id: str, *, wait_for: int = 0) -> dict[str, Any]:
        """The group as answered."""
        return self.get(self.group_path(group_id), wait_for=wait_for).raise_for_status().json()

    def members(self, group_id: str, *, wait_for: int = 0) -> dict[str, dict[str, Any]]:
        """The whole roster by user id, over as many pages as it takes."""
        path, members, cursor = self.group_path(group_id) + "/members", {}, {}
        while cursor is not None:
            page = self.get(path, wait_for=wait_for, limit=1000, **cursor).raise_for_status().json()
            members |= {member["user_id"]: member for member in page["members"]}
            cursor = {"cursor": page["next"]} if page["next"] else None
        return members

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        self.reader.join(timeout=10)
        return status

    def kill(self) -> None:
        """kill -9 of all its processes, as if the power went."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def pids(self) -> dict[str, int]:
        """The ids of the processes that the supervisor has started, by name."""
        states = self.get("/readyz").json().get("processes", {})
        return {name: state["pid"] for name, state in states.items()}


def assert_no_traceback(server: Server) -> None:
    assert [line for line in server.raw_log if "Traceback" in line or '"exception"' in line] == []


def signature(token: str, request_time: int) -> str:
    """The `Sign` parameter, computed here on its own."""
    return sha256(f"{token}{request_time}".encode()).hexdigest()


@contextlib.contextmanager
def serving(database: Path, *arguments: str, inside: Sequence[str] = (), **settings: str) -> Iterator[Server]:
    """Start `projector serve` on a free port and wait for its first log line; stop it at the end.

    `inside` goes before the command.
    """
    process = subprocess.Popen(
        [*inside, sys.executable, "-m", "projector", "serve", "--port", "0", *arguments],
        env=environment(database, **settings),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # so that all its processes can be killed at once
    )
    assert process.stderr is not None
    log: list[dict[str, Any]] = []
    raw_log: list[str] = []
    for line in process.stderr:
        raw_log.append(line)
        if line.startswith("{"):
            log.append(json.loads(line))
            if log[-1]["event"] == "serving":
                break
    else:
        raise AssertionError(f"the server did not start: {''.join(raw_log)}")

    news = threading.Condition()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with news:
                raw_log.append(line)
                if line.startswith("{"):
                    log.append(json.loads(line))
                news.notify_all()

    address = log[-1]["address"]
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with httpx2.Client(timeout=30) as client:
        server = Server(process, address, log, client, reader, raw_log=raw_log, news=news)
        try:
            yield server
        finally:
            if process.poll() is None:
                server.stop()
            reader.join(timeout=10)
            process.stderr.close()
