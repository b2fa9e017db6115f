"""The fake beside simulated traffic: it knows what happened, also what no callback tells of."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import uvicorn

from projector.clock import now_ms
from projector.simulator import commands, names
from projector.simulator.connection import Unreachable
from projector.simulator.life import Delivery, Life
from projector.simulator.vendor.groups import DEFAULT_LIMIT, VendorGroup, VendorGroups, VendorMember
from projector.simulator.vendor.rest_api import RestApi, Vendor
from projector.simulator.vendor.server import VendorServer

KEY: Final = "simulated"
"""The secret key of the simulated app."""

_EARLIER_S: Final = 24 * 3600
_IMPORTED_MEMBERS: Final = 3


class SimulatedVendor:
    """The vendor's groups, which `url` shows."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.groups = VendorGroups()

    def happen(self, life: Life, delivery: Delivery) -> None:
        """Let happen what a callback tells of, whether it is sent or not."""
        if self.groups.find(life.group_id) is None and delivery.command not in (commands.CREATED, *commands.IGNORED):
            self._import(life.group_id, msgspec.json.decode(delivery.body).get("Type", "Public"), delivery.happened_at)
        self.groups.apply(msgspec.json.decode(delivery.body), at_ms=delivery.happened_at)
        if group := self.groups.find(life.group_id):
            group.limit = life.limit or DEFAULT_LIMIT

    def import_groups(self, count: int) -> None:
        """Add groups that no callback tells of."""
        run = names.run(now_ms() // 1_000, 0)
        for number in range(count):
            self._import(names.group_id("Public", run, number, custom=False), "Public", now_ms())

    def wait(self) -> None:
        """Wait until interrupted."""
        threading.Event().wait()

    def _import(self, group_id: str, kind: str, at_ms: int) -> None:
        created_s = at_ms // 1_000 - _EARLIER_S
        users = [names.user_id(1_000_000 + number) for number in range(_IMPORTED_MEMBERS)]
        group = VendorGroup(kind, created_s, owner=users[0], members={user: VendorMember(created_s) for user in users})
        group.texts["Name"] = names.TITLES[len(group_id) % len(names.TITLES)]
        self.groups.add(group_id, group)


@contextmanager
def serving(address: tuple[str, int], *, sdk_app_id: int) -> Iterator[SimulatedVendor]:
    """Serve the vendor's REST API at an address, in a thread. Raises Unreachable if it cannot be listened on."""
    host, port = address
    try:
        listening = socket.create_server(address, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Unreachable(f"cannot listen on {host} port {port} ({error})") from error
    with listening:
        shown = f"[{host}]" if ":" in host else host
        vendor = SimulatedVendor(f"http://{shown}:{listening.getsockname()[1]}")
        app = VendorServer(RestApi(Vendor(sdk_app_id, KEY), vendor.groups, now_ms))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", date_header=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="vendor")
        thread.start()
        try:
            yield vendor
        finally:
            server.should_exit = True
            thread.join()
