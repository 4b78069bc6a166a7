"""A PostgreSQL server of a benchmark's own, which may be restarted at any time."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")


class Cluster:
    """A server on a free port of this machine; its data lies in a new folder.

    PostgreSQL refuses to run as root: then it runs as the user postgres.
    """

    def __init__(self, directory: Path, addresses: Sequence[str] = ()) -> None:
        """addresses: of this machine, from whose networks the server is to be reached, too."""
        self._directory = directory
        self._listen = ",".join(("127.0.0.1", *addresses))
        self._port = free_port()
        self._prefix: list[str] = []
        directory.mkdir()
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(directory, user.pw_uid, user.pw_gid)
            ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}")
            self._prefix = ["setpriv", *ids, "--clear-groups"]
        self._data = directory / "data"
        self._run("initdb", "-D", str(self._data), "-U", "tinyfit", "-A", "trust", "-E", "UTF8")
        with (self._data / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet trust\n")
        self._control("start")
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "tinyfit", "tinyfit")

    def url(self, address: str = "127.0.0.1") -> str:
        return f"postgresql://tinyfit@{address}:{self._port}/tinyfit"

    def restart(self, mode: str) -> None:
        """mode: fast breaks every connection off, immediate is as if the machine had failed."""
        self._control("stop", "-m", mode)
        self._control("start")

    def stop(self) -> None:
        self._control("stop", "-m", "fast")

    def _control(self, action: str, *more: str) -> None:
        options = f"-p {self._port} -k {self._directory} -c listen_addresses={self._listen}"
        log = str(self._directory / "log")
        start = ("-o", options, "-l", log) if action == "start" else ()
        self._run("pg_ctl", "-D", str(self._data), "-w", action, *start, *more)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._prefix, _find(program), *arguments]
        # The server keeps what it is given as output open: a pipe would never end.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} ended with code {done.returncode}: {' '.join(command)}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def find_postgresql() -> bool:
    """Whether there is a PostgreSQL to run, and a user to run it as."""
    try:
        _find("initdb")
        return os.geteuid() != 0 or bool(pwd.getpwnam("postgres"))
    except (FileNotFoundError, KeyError):
        return False


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is not None:
        return found
    newest = sorted(
        _DEBIAN.glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    if not newest:
        raise FileNotFoundError(f"{program} is not installed")
    return str(newest[0])
