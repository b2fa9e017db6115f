"""An endpoint for webhooks, which verifies them with the official library of Standard Webhooks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from standardwebhooks.webhooks import Webhook

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

Answer = Callable[[dict[str, Any]], int]
"""Returns the status with which a message is answered."""


class Endpoint:
    """What an endpoint has received: `accepted` messages with their ids, and how often each id came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.accepted: list[tuple[str, dict[str, Any]]] = []
        self.refused = 0
        self.url = ""
        self.news = threading.Condition()

    def receive(self, body: bytes, headers: dict[str, str]) -> int:
        for secret in (SECRET, OTHER_SECRET):
            Webhook(secret).verify(body, headers)
        message = Webhook(SECRET).verify(body, headers)
        with self.news:
            status = self.answer(message)
            if status < 300:
                self.accepted.append((headers["webhook-id"], message))
            else:
                self.refused += 1
            self.news.notify_all()
        return status

    def wait_until(self, condition: Callable[[], object]) -> None:
        with self.news:
            assert self.news.wait_for(condition, timeout=60), (len(self.accepted), self.refused)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages in the order in which their ids came first."""
        return list(dict(reversed([(webhook_id, message) for webhook_id, message in self.accepted])).values())[::-1]


@contextmanager
def listening(answer: Answer = lambda _: 204) -> Iterator[Endpoint]:
    endpoint = Endpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = endpoint.receive(body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", endpoint.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # a forwarder that was killed
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()
