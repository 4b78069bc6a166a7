"""A Ray cluster of a test's own on this machine, whose nodes can be killed one by one."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.service.support.processes import descendants, is_alive, wait_for

_START = (sys.executable, str(Path(__file__).with_name("ray_start.py")), "start", "--block")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, eq=False)
class _Node:
    """options: of `ray start`; output: what that has printed."""

    process: subprocess.Popen[bytes]
    options: tuple[str, ...]
    output: Path


class RayCluster:
    """A head without processors, which jobs' processes connect to, and nodes with one each.

    It listens on the loopback address only, and to those who know its token: whoever else could
    send it tasks could run anything.
    """

    def __init__(self) -> None:
        with socket.create_server((_LOOPBACK, 0)) as listener:
            self.address = f"{_LOOPBACK}:{listener.getsockname()[1]}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a driver takes localhost as it is
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_enable_metrics_collection": "false",
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "500",
            "RAY_worker_niceness": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        # Its sockets' paths may have 107 characters at most: those of pytest are too long.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._head: _Node | None = None
        self._nodes: list[_Node] = []
        self._started: set[int] = set()

    def start(self, num_nodes: int) -> None:
        port = self.address.partition(":")[2]
        self._head = self._start(
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--temp-dir={self._folder}",
        )
        wait_for(self._answers, 60)
        for _ in range(num_nodes):  # one by one: of those that start together some may die
            self.start_node()

    def start_node(self, *options: str) -> int:
        """Returns its process id once it is there."""
        self.add_node(*options)
        wait_for(self._has_started, 60)
        return self._nodes[-1].process.pid

    def add_node(self, *options: str) -> None:
        """It takes seconds until it is there."""
        self._nodes.append(self._start(f"--address={self.address}", "--num-cpus=1", *options))

    def keep_up(self) -> None:
        """Start each node again that has died by itself: on a busy machine some do as they
        start."""
        for number, node in enumerate(self._nodes):
            if node.process.poll() is not None:
                self._nodes[number] = self._start(*node.options)

    def kill_any_node(self, rng: random.Random) -> None:
        """One that takes tasks, with everything on it."""
        self._kill(self._nodes.pop(rng.randrange(len(self._nodes))).process)

    def kill(self) -> None:
        """Every node of it, the head too."""
        for node in [*self._nodes, *([self._head] if self._head else [])]:
            self._kill(node.process)
        self._nodes.clear()
        self._head = None

    def close(self) -> None:
        self.kill()
        wait_for(lambda: not any(map(is_alive, self._started)))
        shutil.rmtree(self._folder)

    def task_processes(self) -> list[int]:
        """Those that run a task of tinyfit now."""
        running = []
        for node in self._nodes:
            for pid in descendants(node.process.pid):
                with suppress(FileNotFoundError, ProcessLookupError):
                    if b"ray::run_on_node" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        running.append(pid)
        return running

    def _start(self, *options: str) -> _Node:
        output = self._folder / f"{secrets.token_hex(4)}.out"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [
                    *_START,
                    f"--node-ip-address={_LOOPBACK}",
                    "--object-store-memory=100000000",
                    "--disable-usage-stats",
                    *options,
                ],
                env={**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,  # its end ends the node
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        return _Node(process, options, output)

    def _has_started(self) -> bool:
        """The latest node, which is started again where it has died."""
        self.keep_up()
        return b"Ray runtime started" in self._nodes[-1].output.read_bytes()

    def _answers(self) -> bool:
        host, port = self.address.split(":")
        with suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        pids = [process.pid, *descendants(process.pid)]
        self._started.update(pids)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    def hold_task(self) -> int:
        """Waits until a process runs a task, and lets it stand still in its midst."""
        held: list[int] = []

        def hold() -> bool:
            self.keep_up()
            for pid in self.task_processes():
                os.kill(pid, signal.SIGSTOP)
                if pid in self.task_processes():  # it had not just come to its end
                    held.append(pid)
                    return True
                os.kill(pid, signal.SIGCONT)
            return False

        wait_for(hold, 120)
        return held[0]

    def kill_node_of(self, pid: int) -> None:
        """With everything on it, as if its power had failed. pid: its own, or of one on it."""
        (node,) = (n for n in self._nodes if pid in (n.process.pid, *descendants(n.process.pid)))
        self._nodes.remove(node)
        self._kill(node.process)
