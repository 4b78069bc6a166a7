"""Where webhooks may go: over HTTP, to addresses that anybody could reach.

A server that posts to whatever URL its users give would reach what only it can reach: other
services of its machine and network, or its cloud's metadata. A name is resolved once, what it
resolves to is checked, and that is what is connected to: one that changes its mind gets nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
import typing
from collections.abc import Iterable
from urllib.parse import urlsplit

import httpcore

from service.errors import InputError, ServiceError
from service.settings import Settings

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PRIVATE_NAMES = (".localhost", ".local", ".internal")
_MAX_URL = 2_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PrivateAddressError(ServiceError):
    """The name stands for an address that is not everybody's."""


def check_webhook(url: str, settings: Settings) -> None:
    """Raises InputError where this server sends none, or none there."""
    if settings.webhook_secret is None:
        raise InputError(
            f"webhook {url!r}: this server sends none, as TINYFIT_WEBHOOK_SECRET is not set there"
        )
    check_url(url, allow_private=settings.webhook_allow_private)


def check_url(url: str, *, allow_private: bool) -> str:
    """The URL, or InputError where no webhook can go there, as far as its text tells."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"webhook {url!r} is no URL: {error}") from error
    if parts.scheme not in ("https", "http") or not host or len(url) > _MAX_URL:
        raise InputError(
            f"webhook {url[:200]!r} must be an http or https URL of at most {_MAX_URL} characters"
        )
    if parts.username is not None or parts.password is not None:
        raise InputError(
            "webhook: a URL with a password in it is refused; deliveries are signed instead"
        )
    if not url.isascii() or any(character.isspace() for character in url):
        raise InputError(f"webhook {url!r} must be ASCII, without spaces")
    if not allow_private and _is_private_name(host):
        raise InputError(_refusal(host))
    return url


def _is_private_name(host: str) -> bool:
    """As far as it says so itself; what other names stand for is seen when they are gone to."""
    try:
        return not is_public(ipaddress.ip_address(host))
    except ValueError:
        return host == "localhost" or host.endswith(_PRIVATE_NAMES)


def is_public(address: Address) -> bool:
    """Whether packets to it leave this network, whatever the address has packed into it."""
    if isinstance(address, ipaddress.IPv6Address):
        packed = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            packed.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(is_public(inner) for inner in packed if inner is not None):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


class CheckedBackend(httpcore.SyncBackend):
    """Connects to public addresses only, unless others are allowed."""

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__()
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[typing.Any] | None = None,
    ) -> httpcore.NetworkStream:
        address = resolve(host, port, allow_private=self._allow_private)
        return super().connect_tcp(address, port, timeout, local_address, socket_options)


def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """An address of the host. Raises PrivateAddressError where any of its addresses is private."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host!r} is unknown: {error}") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not allow_private and not all(is_public(ipaddress.ip_address(a)) for a in addresses):
        raise PrivateAddressError(_refusal(host))
    return addresses[0]


def _refusal(host: str) -> str:
    return (
        f"webhook host {host!r} is a private address; TINYFIT_WEBHOOK_ALLOW_PRIVATE=1 on the "
        f"server allows it"
    )
