"""The fake of the vendor's REST API on a real socket, and groups for it."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn

from projector.clock import now_ms
from projector.simulator import commands
from projector.simulator.single import compose
from projector.simulator.vendor.groups import VendorGroup, VendorGroups, VendorMember
from projector.simulator.vendor.rest_api import RestApi, Vendor
from projector.simulator.vendor.server import Fault, Request, VendorServer
from tests.running import SDK_APP_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
ADMINISTRATOR = "administrator"


@dataclass
class FakeVendor:
    """The vendor's truth, and the server that shows it. `before` may be set at any time."""

    groups: VendorGroups
    before: Callable[[Request], Fault | None] = lambda _: None
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    def settings(self, **more: str) -> dict[str, str]:
        """The settings of a projector that reconciles with this vendor, without a pause."""
        return {
            "PROJECTOR_REST_URL": self.url,
            "PROJECTOR_REST_ADMIN": ADMINISTRATOR,
            "PROJECTOR_REST_KEY": KEY,
            "PROJECTOR_REST_RATE": "1000",
            "PROJECTOR_REST_SETTLE_S": "1",
            **more,
        }

    def asked(self, command: str) -> int:
        return sum(request.command == command for request in self.requests)

    def happen(self, command: str, group_id: str, *users: str, **fields: Any) -> dict[str, Any]:
        """Let something happen now; return the callback that tells of it."""
        at = now_ms()
        callback = {**compose(command, group_id, users, now_ms=at), **fields}
        self.groups.apply(callback, at_ms=at)
        return callback


@contextlib.contextmanager
def vendor(groups: VendorGroups | None = None, **options: Any) -> Iterator[FakeVendor]:
    """Serve the fake at a free port."""
    known = groups or VendorGroups(keeps_versions=bool(options.get("lag_ms")))
    fake = FakeVendor(known)
    described = Vendor(**{"sdk_app_id": SDK_APP_ID, "key": KEY, "list_interval_s": 0, "rate": None, **options})

    def before(request: Request) -> Fault | None:
        return fake.before(request)

    app = VendorServer(RestApi(described, known, now_ms), before)
    fake.requests = app.requests
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fake.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", date_header=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield fake
        finally:
            server.should_exit = True
            thread.join()


def imported(*users: str, kind: str = "Public", joined_s: int = 1_600_000_000, **fields: Any) -> VendorGroup:
    """A group that no callback has told of, with these members, the first of whom owns it."""
    members = {user: VendorMember(joined_s) for user in users}
    return VendorGroup(kind, joined_s, owner=users[0] if users else "", members=members, **fields)


__all__ = ["ADMINISTRATOR", "KEY", "FakeVendor", "commands", "imported", "vendor"]
