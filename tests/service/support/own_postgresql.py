"""A PostgreSQL server of a test's own, as the Compose file's: reached by TCP and a password."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_VERSIONS = Path("/usr/lib/postgresql")
_NOBODY = "nobody"


@dataclass(frozen=True, kw_only=True)
class Server:
    port: int
    restart: Callable[[str], None]
    """By a mode of pg_ctl's: fast breaks connections off, immediate is as if it had crashed."""


@contextmanager
def own_postgresql(
    *,
    user: str,
    password: str,
    database: str,
    addresses: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """On 127.0.0.1, and on more addresses, from whose networks it then is reached; everything of
    it is gone afterwards. environment: more variables of the server."""
    programs = _find_programs()
    with tempfile.TemporaryDirectory(prefix="tinyfit-postgresql-") as name:
        folder = Path(name)
        secret = folder / "password"
        secret.write_text(password)
        demoted = _demoted(folder)
        demoted["env"] |= environment or {}
        cluster = folder / "cluster"
        initdb = [programs / "initdb", "--pgdata", cluster, "--username", user]
        _run([*initdb, "--auth", "scram-sha-256", "--pwfile", secret, "--no-sync"], **demoted)
        with (cluster / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet scram-sha-256\n")
        port = _free_port()
        listen = ",".join(("127.0.0.1", *addresses))
        options = f"-c listen_addresses={listen} -c port={port} -c fsync=off"
        pg_ctl = [programs / "pg_ctl", "--pgdata", cluster, "--wait"]
        sockets = f"-c unix_socket_directories={folder}"
        log = ["--log", folder / "log", "--options", f"{options} {sockets}"]
        start = [*pg_ctl, *log, "start"]

        def restart(mode: str) -> None:
            _run([*pg_ctl, "--mode", mode, "stop"], **demoted)
            _run(start, **demoted)

        _run(start, **demoted)
        try:
            environment = {**os.environ, "PGPASSWORD": password}
            createdb = [programs / "createdb", "--host", "127.0.0.1", "--port", str(port)]
            _run([*createdb, "--username", user, database], env=environment)
            yield Server(port=port, restart=restart)
        finally:
            _run([*pg_ctl, "--mode", "immediate", "stop"], **demoted)


def _find_programs() -> Path:
    """The folder of initdb, pg_ctl and the like; Debian keeps them off the PATH."""
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        return Path(on_path).resolve().parent
    for folder in sorted(_VERSIONS.glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    pytest.skip("no PostgreSQL is installed to test with")


def _demoted(folder: Path) -> dict[str, Any]:
    """For subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {"cwd": folder, "env": dict(os.environ)}
    nobody = pwd.getpwnam(_NOBODY)
    for path in (folder, *folder.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {
        "cwd": folder,
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
        "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    }


def _run(command: list[Any], **options: Any) -> None:
    arguments = [str(argument) for argument in command]
    done = subprocess.run(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        **options,
    )
    assert done.returncode == 0, done.stdout


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
