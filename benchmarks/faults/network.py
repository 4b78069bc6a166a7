"""Hosts for workers: network namespaces, each with a cable to this machine that can be cut.

Processes on them share this machine's files, as workers share their data folder.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass


class NoHostsError(Exception):
    """This machine lets nobody make network namespaces."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A network namespace that reaches this machine at `server`, and nothing else."""

    name: str
    server: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command that is to run there; its process id is the command's."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """From now on packets of both ways are lost, and nobody is told."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        _ip("link", "set", self.name, "up")


@contextmanager
def new_host() -> Iterator[Host]:
    """Of the networks for tests between devices (RFC 2544), 198.18.0.0/15, two addresses.

    Raises NoHostsError.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise NoHostsError("network namespaces need root and iproute2")
    number = random.SystemRandom().randrange(1 << 15)
    network = (198 << 24) + (18 << 16) + 4 * number
    host = Host(name=f"tinyfit{number}", server=_dotted(network + 1))
    with ExitStack() as stack:
        try:
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "delete", host.name)  # and with it the cable
            _lay_cable(host, inside=_dotted(network + 2))
        except subprocess.CalledProcessError as error:
            raise NoHostsError(f"no network namespaces here: {error.stderr.strip()}") from error
        yield host


def _lay_cable(host: Host, *, inside: str) -> None:
    cable = ("type", "veth", "peer", "name", "cable", "netns", host.name)
    _ip("link", "add", host.name, *cable)
    _ip("address", "add", f"{host.server}/30", "dev", host.name)
    _ip("link", "set", host.name, "up")
    _ip("-n", host.name, "address", "add", f"{inside}/30", "dev", "cable")
    _ip("-n", host.name, "link", "set", "cable", "up")


def _dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
