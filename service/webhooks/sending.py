"""Sending a webhook, once."""

from __future__ import annotations

import ssl

import httpcore

from service.signing import sign
from service.webhooks.addresses import CheckedBackend, PrivateAddressError

_TIMEOUT_SECONDS = 10.0


def post(
    url: str,
    body: bytes,
    *,
    webhook_id: str,
    timestamp: int,
    key: bytes,
    allow_private: bool,
) -> str | None:
    """Post it; why it was not taken, or None where it was: by any answer of 200 to 299. Redirects
    are not followed, proxies not used, and answers not read."""
    headers: dict[bytes | str, bytes | str] = {
        "Content-Type": "application/json",
        "User-Agent": "tinyfit",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(key, webhook_id, timestamp, body),
    }
    steps = ("connect", "read", "write", "pool")
    pool = httpcore.ConnectionPool(
        ssl_context=ssl.create_default_context(),
        network_backend=CheckedBackend(allow_private=allow_private),
    )
    try:
        with (
            pool,
            pool.stream(
                "POST",
                url,
                headers=headers,
                content=body,
                extensions={"timeout": dict.fromkeys(steps, _TIMEOUT_SECONDS)},
            ) as response,
        ):
            if 200 <= response.status < 300:
                return None
            return f"it answers {response.status}"
    except PrivateAddressError as error:
        return str(error)
    except (
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
        OSError,
        ValueError,
    ) as error:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
