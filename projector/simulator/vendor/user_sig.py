"""The vendor's check of a UserSig, in the order of its official verifier."""

import base64
import binascii
import hmac
import zlib
from hashlib import sha256

import msgspec


def check_user_sig(user_sig: str, *, identifier: str, sdk_app_id: int, key: str, now_s: int) -> int:
    """Return the error code, 0 if the signature is valid."""
    if not user_sig:
        return 70002
    try:
        packed = base64.b64decode(user_sig.translate(str.maketrans("*-_", "+/=")), validate=True)
        document = msgspec.json.decode(zlib.decompress(packed), type=dict[str, str | int])
        named, app, time, expire = (document[f"TLS.{name}"] for name in ("identifier", "sdkappid", "time", "expire"))
        signature = str(document["TLS.sig"])
    except (ValueError, binascii.Error, zlib.error, msgspec.DecodeError, KeyError):
        return 70003
    if app != sdk_app_id:
        return 70014
    if named != identifier:
        return 70013
    if now_s > int(time) + int(expire):
        return 70001
    text = f"TLS.identifier:{named}\nTLS.sdkappid:{app}\nTLS.time:{time}\nTLS.expire:{expire}\n"
    expected = base64.b64encode(hmac.digest(key.encode(), text.encode(), sha256)).decode()
    return 0 if hmac.compare_digest(expected.encode(), signature.encode()) else 70009
