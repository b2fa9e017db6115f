"""Every captured body and documented sample, posted to a real server over a real socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.callbacks.payloads import PAYLOADS, Payload
from tests.running import SDK_APP_ID, serving

if TYPE_CHECKING:
    from pathlib import Path

OK = b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}'


@pytest.mark.slow
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_the_effect_of_each_callback_alone_is_served(tmp_path: Path, payload: Payload) -> None:
    with serving(tmp_path / "events.db") as server:
        response = server.client.post(f"{server.url}/callback?{payload.target(SDK_APP_ID)}", content=payload.body)
        assert response.status_code == payload.status
        if payload.status == 200:
            assert response.content == OK
        if payload.recorded:
            position = int(response.headers["Projector-Position"])
            (event,) = server.get("/v1/events", wait_for=position).json()["events"]
            assert event["type"] == payload.recorded
        if payload.group_id:
            group = server.get(server.group_path(payload.group_id))
            if payload.group is None:
                assert group.status_code == 404
            else:
                assert {name: group.json()[name] for name in payload.group} == payload.group
                served = server.members(payload.group_id)
                assert served.keys() == payload.members.keys()
                for user, member in payload.members.items():
                    assert {name: served[user][name] for name in member} == member
        assert not [line for line in server.raw_log if "Traceback" in line]
