"""UserSig: the published vectors, and the vendor's check of them."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from projector.reconciliation.rest_client import user_sig
from projector.simulator.vendor.user_sig import check_user_sig
from tests.vendor import KEY

VECTORS = [
    (KEY, "xiaojun", 1400000000, 1700000000, 15552000, "LvA7d/Iw7gSsnskvVzBDPOCCDbuNCw4GHwTC0bip+B4="),
    ("k" * 64, "u_0123456789ab", 1721003276, 1757203200, 604800, "+sIka5ouULt/3wE0bc3OymHCT5/D239yiZA1WM9+1sY="),
    ("密钥里有中文和 emoji 🎮", "x" * 32, 2000000001, 2147483647, 1, "3hl++JEaVdDiVI+Tt8QZPtEIkTxRU5usv6u0FCx3LSE="),
    (KEY, "administrator", 1400000000, 1700000000, 86400, "yLAe+w7WUeUuqbV9h/TX78u21oTGi+i9Zp1u3PpnY60="),
    (KEY, "administrator", 1400000000, 1700000000, 15552000, "JCzxanF8NTTXau4m+2h9wv7gYJnyNksm0xm1NEXU274="),
    (
        "test-secret-key-1234567890abcdef",
        "user_42",
        20030819,
        1718764800,
        604800,
        "8y4PAvIKGCmKvubBW+DGnAa/LQ9VpBWp4fEjtiQ/VHQ=",
    ),
]
"""Published by implementations in Node and Kotlin: key, account, app, time, duration, signature."""

TICKET = (
    "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwhWZiflZpXlQqeKU7MSCgswUJStDEwMogMiUZOamKlkZmqOKplYUZBaBxE1NTY3gosWZ6UpWS"
    "j5ljuYp*p7l5unBxXnF2WVhVU4uAf7Ozi5JpX7O5SbuHuUhzgZJmQXaTia2SrUAohcx8g__"
)


def opened(ticket: str) -> dict[str, Any]:
    packed = base64.b64decode(ticket.translate(str.maketrans("*-_", "+/=")))
    return json.loads(zlib.decompress(packed))


@pytest.mark.parametrize(("key", "account", "app", "time", "expire", "signature"), VECTORS)
def test_a_signature_is_the_published_one(
    key: str, account: str, app: int, time: int, expire: int, signature: str
) -> None:
    ticket = user_sig(key, account, app, now_s=time, expire_s=expire)
    assert opened(ticket) == {
        "TLS.ver": "2.0",
        "TLS.identifier": account,
        "TLS.sdkappid": app,
        "TLS.time": time,
        "TLS.expire": expire,
        "TLS.sig": signature,
    }
    assert set(ticket) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-_")
    assert check_user_sig(ticket, identifier=account, sdk_app_id=app, key=key, now_s=time + expire) == 0


def test_the_vendor_accepts_a_ticket_of_its_own_library_and_names_each_fault() -> None:
    right = {"identifier": "xiaojun", "sdk_app_id": 1400000000, "key": KEY, "now_s": 1700000000}
    assert check_user_sig(TICKET, **right) == 0
    assert check_user_sig(TICKET, **right | {"sdk_app_id": 1}) == 70014
    assert check_user_sig(TICKET, **right | {"identifier": "other"}) == 70013
    assert check_user_sig(TICKET, **right | {"now_s": 1700000000 + 15552001}) == 70001
    assert check_user_sig(TICKET, **right | {"key": "other"}) == 70009
    assert check_user_sig("", **right) == 70002
    assert check_user_sig("usersig=xxx", **right) == 70003
