"""The payload files: a callback each, with the expected status code and the state that follows from it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

DIRECTORY = Path(__file__).with_name("payloads")


class Payload(NamedTuple):
    """One file. `event` and `group` hold expected fields, but not all of them; `group` is None for an unknown group."""

    name: str
    query: dict[str, str]
    body: bytes
    status: int
    recorded: str | None
    event: dict[str, Any]
    group: dict[str, Any] | None
    members: dict[str, dict[str, Any]]

    def target(self, sdk_app_id: int) -> str:
        """Return the query string to post to, with this app's id."""
        return urlencode({k: str(sdk_app_id) if k.lower() == "sdkappid" else v for k, v in self.query.items()})

    @property
    def group_id(self) -> str | None:
        """The group id in the body, None if there is none or the body cannot be read."""
        try:
            body = json.loads(self.body)
        except ValueError:
            return None
        return body.get("GroupId", body.get("groupID"))


def load(path: Path) -> Payload:
    file = json.loads(path.read_text())
    body = (
        file["raw_body"] if "raw_body" in file else json.dumps(file["body"], ensure_ascii=False, separators=(",", ":"))
    )
    then = file["then"]
    return Payload(
        path.stem,
        file["query"],
        body.encode(),
        file["status"],
        file["recorded"],
        file.get("event", {}),
        then["group"],
        then["members"],
    )


PAYLOADS = [load(path) for path in sorted(DIRECTORY.glob("*.json"))]
RECORDED = [payload for payload in PAYLOADS if payload.recorded]
IGNORED = [payload for payload in PAYLOADS if payload.status == 200 and not payload.recorded]
UNREADABLE = [payload for payload in PAYLOADS if payload.status == 400]
COMMANDS = sorted({payload.query.get("CallbackCommand", "") for payload in PAYLOADS})
