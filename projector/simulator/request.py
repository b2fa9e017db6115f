"""The requests with which callbacks are delivered, and the reasons for which a receiver refuses them."""

import time
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from projector.callbacks import sign
from projector.simulator.connection import Response
from projector.simulator.options import Options

_MAX_QUOTED: Final = 300


class Refused(Exception):
    """The receiver did not acknowledge a callback. The text gives its status and its reason."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"status {response.status}: {reason(response.body)}")


def target(options: Options, command: str, platform: str) -> str:
    """Return the path and the query of a callback, signed if there is a token."""
    query = {
        "CallbackCommand": command,
        "ClientIP": "203.0.113.7",
        "OptPlatform": platform,
        "SdkAppid": str(options.sdk_app_id),
        "contenttype": "json",
    }
    if options.token:
        now = int(time.time())
        query |= {"RequestTime": str(now), "Sign": sign(options.token, now)}
    return f"{options.callback_path}?{urlencode(query)}"


def reason(body: bytes) -> str:
    """Return the `ErrorInfo` of a receiver's response, the detail of a problem, or else the beginning of the body."""
    try:
        content: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        content = None
    if isinstance(content, dict) and (quoted := content.get("ErrorInfo") or content.get("detail")):
        return str(quoted)
    return body[:_MAX_QUOTED].decode(errors="replace") or "no reason"
