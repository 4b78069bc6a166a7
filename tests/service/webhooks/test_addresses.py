"""Webhooks stay away from what only the server can reach."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from service.errors import InputError
from service.webhooks.addresses import PrivateAddressError, check_url, is_public, resolve


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "ff02::1"),
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InputError, match="is a private address"):
        check_url(f"http://{host}/hook", allow_private=False)
    assert check_url(f"http://{host}/hook", allow_private=True)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("https://", "http or https"),
        ("example.com/hook", "http or https"),
        ("https://user:word@example.com/", "password"),
        ("https://example.com:port/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://example.com/a b", "without spaces"),
        ("https://example.com/" + "x" * 2000, "at most 2000"),
    ],
)
def test_what_is_no_url_for_a_webhook(url: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_url(url, allow_private=True)


@pytest.mark.parametrize(
    "found", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["fe80::1%eth0"]], ids=str
)
def test_a_name_with_any_private_address_is_refused(
    found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Any = [(socket.AF_INET, 0, 0, "", (address, 80)) for address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **kind: answers)
    with pytest.raises(PrivateAddressError, match=r"'inside\.example' is a private address"):
        resolve("inside.example", 80, allow_private=False)
    assert resolve("inside.example", 80, allow_private=True) == found[0].partition("%")[0]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a.localhost", "metadata.google.internal"]
)
def test_names_that_say_that_they_are_private(host: str) -> None:
    with pytest.raises(InputError, match="is a private address"):
        check_url(f"http://{host}:8080/hook", allow_private=False)
    assert check_url(f"http://{host}:8080/hook", allow_private=True)
    assert check_url("https://localhost.example.com/", allow_private=False)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001"])
def test_other_ways_to_write_an_address(host: str) -> None:
    """The system reads them, so they are looked at once it has."""
    with pytest.raises(PrivateAddressError):
        resolve(host, 80, allow_private=False)
