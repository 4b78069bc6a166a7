"""Hosts of a test's own: network namespaces, each with a cable to this machine that can be cut.

Processes on them share this machine's files, as workers share their data folder.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True, kw_only=True)
class Host:
    """A network namespace that reaches this machine at `server`, and nothing else."""

    name: str
    server: str

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **options)

    def cut(self) -> None:
        """From now on packets of both ways are lost, and nobody is told."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        _ip("link", "set", self.name, "up")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Skips where this machine can't have any."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    with ExitStack() as stack:
        yield stack.enter_context(_host()), stack.enter_context(_host())


@contextmanager
def _host() -> Iterator[Host]:
    """Of the networks for tests between devices (RFC 2544), 198.18.0.0/15, two addresses."""
    number = random.SystemRandom().randrange(1 << 15)
    network = (198 << 24) + (18 << 16) + 4 * number
    host = Host(name=f"tinyfit{number}", server=_dotted(network + 1))
    try:
        _ip("netns", "add", host.name)
    except RuntimeError as error:
        pytest.skip(f"no network namespaces here ({error})")
    try:
        inside = ("-n", host.name)
        cable = ("type", "veth", "peer", "name", "cable", "netns", host.name)
        _ip("link", "add", host.name, *cable)
        _ip("address", "add", f"{host.server}/30", "dev", host.name)
        _ip("link", "set", host.name, "up")
        _ip(*inside, "address", "add", f"{_dotted(network + 2)}/30", "dev", "cable")
        _ip(*inside, "link", "set", "cable", "up")
        yield host
    finally:
        _ip("netns", "delete", host.name)  # and with it the cable


def _dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
