"""An S3 server of the tests' own: SeaweedFS, which comes as a package of the dev extra."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_BUCKET = "tinyfit"
_KEY, _SECRET = "tests", "only-for-tests"
_START_SECONDS = 60.0
_SOCKETS = Path("/tmp")
"""Where the server puts them, whatever it is told."""
_PORTS = ("s3.port", "s3.port.grpc", "filer.port", "filer.port.grpc", "master.port")
_PORTS += ("master.port.grpc", "volume.port", "volume.port.grpc")
_OFF = ("s3.port.iceberg=0", "s3.port.lance=0", "s3.iam=false")


@dataclass(kw_only=True)
class S3Server:
    """Reached on 127.0.0.1 with `environment`; it can be stopped and started again."""

    directory: Path
    program: str
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"s3://{_BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Returns once objects can be put."""
        options = [f"-{name}={port}" for name, port in self.ports.items()]
        options += [f"-{option}" for option in _OFF]
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(self.program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *(f"-dir={self.directory}", "-filer", "-s3", *options),
                    *(
                        "-master.volumeSizeLimitMB=64",
                        "-master.electionTimeout=500ms",
                        "-volume.max=20",
                    ),
                    f"-s3.config={self.directory / 'identities.json'}",
                ],
                cwd=self.directory,
                env={**os.environ, "TMPDIR": str(self.directory)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._works():
            log_text = (self.directory / "log").read_text(errors="replace")
            assert self.process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for port in self.ports.values():
            for path in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()

    def _works(self) -> bool:
        """Whether the bucket is there, or can be made, and takes an object."""
        import s3fs

        files = s3fs.S3FileSystem(
            key=_KEY,
            secret=_SECRET,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            config_kwargs={"connect_timeout": 1, "retries": {"max_attempts": 1}},
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        files.retries = 1
        try:
            if not files.exists(_BUCKET):
                files.mkdir(_BUCKET)
            files.pipe_file(f"{_BUCKET}/started", b"yes")
        except Exception:
            return False
        return True


@contextmanager
def own_s3() -> Iterator[S3Server]:
    """A server that runs; everything of it is gone afterwards."""
    pytest.importorskip("s3fs", reason="s3fs is not installed to test with")
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if program is None:
        pytest.skip("no SeaweedFS is installed to test with")
    with tempfile.TemporaryDirectory(prefix="tinyfit-s3-") as name:
        directory = Path(name)
        keys = [{"accessKey": _KEY, "secretKey": _SECRET}]
        identity = {"name": "tests", "credentials": keys, "actions": ["Admin"]}
        (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
        server = S3Server(directory=directory, program=program, ports=_free_ports())
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _free_ports() -> dict[str, int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _PORTS]
        return {
            name: listener.getsockname()[1]
            for name, listener in zip(_PORTS, listeners, strict=True)
        }
