"""A projector without a server, and the vendor beside it, in one process and in a time of its own."""

from __future__ import annotations

import asyncio
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest

from projector.bootstrap import PROJECTIONS, open_generations, open_queries, open_stores
from projector.callbacks import translate
from projector.clock import now_ms
from projector.event_store import Candidate
from projector.reconciliation.mirror import Mirror
from projector.reconciliation.rest_client import RestClient
from projector.reconciliation.run import Reconciliation, RunOptions
from projector.replay.replay import Replay
from projector.settings import Settings
from projector.simulator.single import compose
from projector.simulator.vendor.groups import VendorGroups
from projector.simulator.vendor.rest_api import RestApi, Vendor
from projector.simulator.vendor.server import Fault, Request, VendorServer
from tests import shown
from tests.running import SDK_APP_ID
from tests.vendor import ADMINISTRATOR, KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from projector.domain.events import Recorded
    from projector.event_store.reconciliations import RunReport

Callback = dict[str, Any]


class Clock:
    """The time that everything goes by; it passes only when told, and a millisecond at each look."""

    def __init__(self) -> None:
        self.ms = 1_790_000_000_000

    def time_ns(self) -> int:
        self.ms += 1
        return self.ms * 1_000_000

    def pass_(self, ms: int) -> None:
        self.ms += ms


class Installation:
    """The stores, and the vendor. `before` is called before each answer of the vendor."""

    def __init__(self, directory: Path, clock: Clock, **vendor: Any) -> None:
        self.clock = clock
        self.settings = Settings(database_path=str(directory / "p.db"), sdk_app_id=SDK_APP_ID)
        self.store = open_stores(self.settings).events
        self.queries = open_queries(self.settings)
        self.generations = open_generations(self.settings)
        self.groups = VendorGroups(keeps_versions="lag_ms" in vendor)
        self.skew_ms = vendor.get("skew_ms", 0)
        self.before: Callable[[Request], Fault | None] = lambda _: None
        described = {"sdk_app_id": SDK_APP_ID, "key": KEY, "rate": None, "list_interval_s": 0, **vendor}
        api = RestApi(Vendor(**described), self.groups, lambda: clock.ms)
        self.vendor = VendorServer(api, self._before)

    def _before(self, request: Request) -> Fault | None:
        return self.before(request)

    def happen(self, command: str, group_id: str, *users: str, **fields: Any) -> Callback:
        """Let something happen at the vendor; return the callback that tells of it."""
        at = now_ms() + self.skew_ms
        callback = {**compose(command, group_id, users, now_ms=at), **fields}
        self.groups.apply(callback, at_ms=at)
        return callback

    def deliver(self, *callbacks: Callback) -> None:
        for callback in callbacks:
            body = msgspec.json.encode(callback)
            event, identity, _ = translate(callback["CallbackCommand"], body, platform=None, received_at=now_ms())
            self.store.append([Candidate(event, identity)])

    def reconcile(self, **options: Any) -> RunReport:
        return asyncio.run(self._reconcile(RunOptions(SDK_APP_ID, **{"settle_s": 0, **options})))

    def mirror(self) -> Mirror:
        rebuild = lambda: Replay(self.store, self.generations, PROJECTIONS).rebuild_if_needed()  # noqa: E731
        return Mirror(self.store, self.generations, self.queries, PROJECTIONS, rebuild)

    def shown(self) -> dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]]:
        """Return every group of the mirror, with its members."""
        self.mirror().catch_up()
        with self.queries.session() as session:
            return shown.stored(session)

    def history(self) -> list[Recorded]:
        return self.store.read(0, 100_000)

    def differences(self) -> list[str]:
        """Return what the mirror shows otherwise than the vendor."""
        mirrored, found = self.shown(), []
        for group_id in sorted({*mirrored, *self.groups}):
            truth, (group, members) = self.groups.find(group_id), mirrored.get(group_id, ({}, {}))
            if truth is None:
                found += [f"{group_id} is {group['status']}"] if group["status"] != "dismissed" else []
                continue
            is_open = truth.type == "AVChatRoom"
            expected = {
                "status": "active",
                "type": truth.type,
                "owner": truth.owner,
                "custom_fields": truth.custom_fields,
                "attributes": truth.attributes,
                **{name: truth.texts[key] for key, name in _TEXTS.items()},
            }
            if not is_open:
                expected |= {
                    "member_limit": truth.limit,
                    "is_full": len(truth.members) >= truth.limit,
                    "roster_complete": True,
                }
                roster = {
                    user: ("Owner" if user == truth.owner else member.role, member.name_card, member.joined_s)
                    for user, member in truth.members.items()
                }
                for user in sorted({*roster, *members}):
                    if _shown_member(members.get(user)) != (roster[user][:2] if user in roster else None):
                        found.append(f"{group_id}: {user} is {members.get(user)}, not {roster.get(user)}")
            found += [
                f"{group_id}: {name} is {group.get(name)!r}, not {value!r}"
                for name, value in expected.items()
                if (group.get(name) or "") != (value or "")
            ]
        return found

    async def _reconcile(self, options: RunOptions) -> RunReport:
        async with RestClient(
            "https://vendor.example",
            sdk_app_id=SDK_APP_ID,
            administrator=ADMINISTRATOR,
            key=KEY,
            rate=1_000_000,
            transport=httpx2.ASGITransport(self.vendor),
        ) as client:
            client._list_pace = client._pace
            return await Reconciliation(self.store, self.mirror(), client, options).run()


_TEXTS = {"Name": "name", "Introduction": "introduction", "Notification": "notification", "FaceUrl": "face_url"}


def _shown_member(member: dict[str, Any] | None) -> tuple[str, str] | None:
    return None if member is None else (member["role"], member["name_card"] or "")


@contextmanager
def installed(directory: Path, **vendor: Any) -> Iterator[Installation]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projector.clock.time", SimpleNamespace(time_ns=clock.time_ns))
        patch.setattr("projector.reconciliation.rest_client.time.time", lambda: clock.ms / 1_000)
        installation = Installation(directory, clock, **vendor)
        with closing(installation.store), closing(installation.queries):
            yield installation
