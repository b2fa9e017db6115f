"""Signatures of Standard Webhooks 1.0."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256


def signed_headers(secrets: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a webhook, with a signature for each secret; the time is in seconds since 1970 UTC."""
    content = f"{webhook_id}.{timestamp}.".encode() + body
    signatures = [b64encode(hmac.digest(secret, content, sha256)).decode() for secret in secrets]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
