"""Signatures of webhooks, as Standard Webhooks 1.0 has them."""

from __future__ import annotations

import base64
import hashlib
import hmac

_PREFIX = "whsec_"
_LEAST_KEY_BYTES = 24


def key_of(secret: str) -> bytes:
    """The signing key: of "whsec_" and base64, or any text, of at least 24 bytes. Raises
    ValueError."""
    key = secret.encode()
    if secret.startswith(_PREFIX):
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    if len(key) < _LEAST_KEY_BYTES:
        raise ValueError(f"it must have at least {_LEAST_KEY_BYTES} bytes but has {len(key)}")
    return key


def sign(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """HMAC-SHA256 of "ID.TIMESTAMP.BODY", as the header webhook-signature has it."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
