"""The Compose file and the image, as far as they can be tried without a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli.main import _parser
from service.settings import Settings
from tests.service.support.own_postgresql import own_postgresql

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OWN = ("migrate", "api", "worker")
RAY = ("ray-head", "ray-node")
PASSWORD = "p@ss/w:rd %20'$"

Files = dict[str, bytes]
MakeZip = Callable[[Mapping[str, bytes]], Path]


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="check-jsonschema is missing")
def test_the_compose_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_compose_file_opens_and_waits_for() -> None:
    assert set(SERVICES) == {"db", *OWN, *RAY}
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["api"]
    assert SERVICES["api"]["ports"] == ["${TINYFIT_PUBLISH:-127.0.0.1:8000}:8000"]
    for name in ("api", "worker"):
        waits_for = SERVICES[name]["depends_on"]
        assert waits_for["migrate"]["condition"] == "service_completed_successfully"
    assert SERVICES["migrate"]["depends_on"]["db"]["condition"] == "service_healthy"
    assert SERVICES["migrate"]["restart"] == "no"
    restarted = [name for name in SERVICES if SERVICES[name]["restart"] == "unless-stopped"]
    assert restarted == ["db", "api", "worker", *RAY]
    assert all("healthcheck" in SERVICES[name] for name in restarted)
    volumes = {entry for name in SERVICES for entry in SERVICES[name]["volumes"]}
    assert volumes == {"data:/data", "database:/var/lib/postgresql/data"}
    assert "password" not in COMPOSE.lower().partition("tinyfit@db")[2].partition("\n")[0]


def test_the_cluster_is_asked_for_by_name_and_open_to_nobody() -> None:
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == list(RAY)
    for name in RAY:
        service = SERVICES[name]
        assert service["profiles"] == ["ray"]
        assert service["build"]["args"] == {"EXTRAS": "ray"}
        assert service["image"] != SERVICES["worker"]["image"]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
    head, node = (SERVICES[name] for name in RAY)
    assert Settings(ray_address=head["environment"]["TINYFIT_RAY_ADDRESS"])
    assert not [name for name in node["environment"] if not name.startswith("RAY_")]
    assert node["volumes"] == []
    (port,) = re.findall(r"--port=(\d+)", head["command"][-1])
    assert f"--address=ray-head:{port}" in node["command"]
    assert "\ntinyfit worker &" in head["command"][-1]
    done = subprocess.run(["bash", "-n", "-c", head["command"][-1]], check=False)
    assert done.returncode == 0


def test_commands_and_grace() -> None:
    for name in OWN:
        program, *arguments = SERVICES[name]["command"]
        assert program == "tinyfit"
        _parser().parse_args(arguments)
    grace = float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace >= Settings().stop_grace_seconds + 10


def test_the_image() -> None:
    for package in ("tinytl", "search", "service", "migrations"):
        assert f"COPY {package} {package}" in DOCKERFILE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (torch,) = re.findall(r"torch==\S+", DOCKERFILE)
    assert torch in project["dependencies"]
    last_user = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert last_user == "tinyfit"
    dependencies, _, sources = DOCKERFILE.partition("COPY README.md")
    assert "--requirement requirements.txt" in dependencies
    assert "--no-deps ." in sources
    (program,) = re.findall(r'python -c "(import tomllib.*?)" >', dependencies)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = [*project["dependencies"], *project["optional-dependencies"]["s3"]]
    assert done.stdout.replace("\\n", "\n").split() == "\n".join(wanted).split()
    (program,) = re.findall(r'python -c "(import sys, tomllib.*?)" \$EXTRAS >', dependencies)
    for extras in ([], ["ray"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *extras],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        expected = [line for name in extras for line in project["optional-dependencies"][name]]
        assert done.stdout.split() == expected


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The Compose file's services on this machine: their commands, with addresses of our own."""

    folder: Path
    database_port: int
    api_port: int

    def environment(self, service: str) -> dict[str, str]:
        said = SERVICES[service].get("environment", {})
        ours = {
            name: re.sub(r"\$\{POSTGRES_PASSWORD:\?.*\}", lambda match: PASSWORD, value).replace(
                "@db/", f"@127.0.0.1:{self.database_port}/"
            )
            for name, value in said.items()
        }
        inherited = ("HOME", "LANG", "TINYFIT_JOB_NICENESS")
        outside = {name: os.environ[name] for name in inherited if name in os.environ}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        image = {"TINYFIT_DATA_DIR": str(self.folder)}
        return {**outside, "PATH": path, "OMP_NUM_THREADS": "1", **image, **ours}

    def ported(self, command: list[str]) -> list[str]:
        return [argument.replace("8000", str(self.api_port)) for argument in command]

    def run(
        self, service: str, command: list[str], **more: str
    ) -> subprocess.CompletedProcess[str]:
        """A command in the service's place, as by `docker compose run`."""
        return subprocess.run(
            self.ported(command),
            env=self.environment(service) | more,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,  # a job on a busy machine
        )

    @contextmanager
    def up(self, service: str) -> Iterator[subprocess.Popen[bytes]]:
        """The service at work; it must end in good order when it is told to."""
        with (self.folder / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                self.ported(SERVICES[service]["command"]),
                env=self.environment(service),
                cwd=self.folder,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()

    def is_healthy(self, service: str) -> bool:
        kind, *command = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        more = {"PGPORT": str(self.database_port)} if service == "db" else {}
        return self.run(service, command, **more).returncode == 0

    def wait_until_healthy(self, service: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not self.is_healthy(service):
            assert time.monotonic() < deadline, (self.folder / f"{service}.log").read_text()
            time.sleep(0.1)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api_port = listener.getsockname()[1]
    environment = SERVICES["db"]["environment"]
    names = {"user": environment["POSTGRES_USER"], "database": environment["POSTGRES_DB"]}
    with own_postgresql(password=PASSWORD, **names) as server:
        folder = tmp_path / "installation"
        folder.mkdir()
        yield Installation(folder=folder, database_port=server.port, api_port=api_port)


def test_every_service_of_the_compose_file_works(
    installation: Installation, make_zip: MakeZip, split_files: Files
) -> None:
    assert installation.is_healthy("db")
    too_early = installation.run("worker", SERVICES["worker"]["command"])
    assert too_early.returncode == 1
    assert "run tinyfit db upgrade" in too_early.stderr

    migrated = installation.run("migrate", SERVICES["migrate"]["command"])
    assert migrated.returncode == 0, migrated.stderr
    assert PASSWORD not in migrated.stdout + migrated.stderr

    exposed = installation.run("api", SERVICES["api"]["command"])
    assert exposed.returncode == 2
    assert "tinyfit keys create" in exposed.stderr
    (line,) = re.findall(r"docker compose run --rm api (tinyfit keys create .*?)  ", COMPOSE)
    created = installation.run("api", [*shlex.split(line), "--json"])
    user = {
        "TINYFIT_API_KEY": json.loads(created.stdout)["key"],
        "TINYFIT_URL": f"http://127.0.0.1:{installation.api_port}",
    }

    assert not installation.is_healthy("api")
    assert not installation.is_healthy("worker")
    with installation.up("api"), installation.up("worker"):
        installation.wait_until_healthy("api")
        installation.wait_until_healthy("worker")
        archive = make_zip(split_files)
        tiny = ["--resolutions", "32", "--trials", "1", "--epochs", "1", "--adapt-steps", "2"]
        submit = ["tinyfit", "submit", str(archive), "--memory-limit", "6MB", *tiny]
        watched = installation.run("api", [*submit, "--watch", "--json"], **user)
        assert watched.returncode == 0, watched.stderr
        job = json.loads(watched.stdout.splitlines()[-1])
        assert job["status"] == "succeeded"
        assert f"running on {socket.gethostname()}:" in watched.stderr
        fetched = installation.run("api", ["tinyfit", "download", job["id"]], **user)
        assert fetched.returncode == 0, fetched.stderr
        assert (installation.folder / f"tinyfit-{job['id'][:8]}.zip").is_file()
        uninvited = installation.run("api", ["tinyfit", "list"], **user | {"TINYFIT_API_KEY": ""})
        assert uninvited.returncode == 2
    assert not installation.is_healthy("worker")
