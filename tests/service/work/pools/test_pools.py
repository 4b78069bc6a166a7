"""Pools with tasks that train nothing."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import ServiceError, TaskLostError
from service.work.pools.news import Alive, Done, News, Started, Step
from service.work.pools.pool import OwnProcess
from service.work.pools.processes import ProcessPool
from service.work.processes.lifeline import StopCheck
from tests.service.support.processes import is_alive, wait_for
from tests.service.work.pool_tasks import Parcel, Scripted
from tinytl.errors import CancelledError

Told = list[tuple[int, News]]


class Watch:
    """What a pool is told about stopping, and the beats that it gives."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.num_beats = 0
        self.check = StopCheck(self.stop, self._beat)

    def _beat(self) -> None:
        self.num_beats += 1


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def pool(watch: Watch) -> Iterator[ProcessPool]:
    parcel: Any = Parcel("shared")
    with ProcessPool(2, parcel, watch.check) as pool:
        yield pool
    assert multiprocessing.active_children() == []


def run(pool: Any, tasks: list[Scripted]) -> Told:
    told: Told = []
    pool.run(tasks, lambda number, news: told.append((number, news)))
    return told


def found(told: Told) -> dict[int, Any]:
    return {number: news.score for number, news in told if isinstance(news, Done)}


def test_the_own_process_runs_them_in_their_order(watch: Watch) -> None:
    shared: Any = "shared"
    told = run(OwnProcess(shared, watch.check), [Scripted("tell"), Scripted("tell")])
    assert told == [(number, news) for number, (_, news) in enumerate(told)]
    assert found(told) == {0: ("shared", os.getpid()), 1: ("shared", os.getpid())}


def test_the_own_process_stops_between_tasks(watch: Watch) -> None:
    shared: Any = None
    watch.stop.set()
    with pytest.raises(CancelledError):
        run(OwnProcess(shared, watch.check), [Scripted("tell")])


def test_tasks_run_side_by_side_in_the_same_processes(
    pool: ProcessPool, watch: Watch, tmp_path: Path
) -> None:
    first = found(run(pool, [Scripted("meet", tmp_path), Scripted("meet", tmp_path)]))
    pids = {pid for _, pid in first.values()}
    assert len(pids) == 2
    assert os.getpid() not in pids
    more = found(run(pool, [Scripted("tell") for _ in range(5)]))
    assert sorted(more) == [0, 1, 2, 3, 4]
    assert {shared for shared, _ in more.values()} == {"shared"}
    assert {pid for _, pid in more.values()} <= pids


def test_only_news_are_beats_and_steps_are_told_now_and_then(
    pool: ProcessPool, watch: Watch
) -> None:
    told = run(pool, [Scripted("step")])
    assert watch.num_beats == len(told)
    assert told[0] == (0, Started())
    steps = [news for _, news in told if isinstance(news, Step)]
    assert steps[-1] == Step(1000, 1000)
    assert len(steps) < 100


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("fail", ValueError, "it went wrong"),
        ("fail oddly", ServiceError, "OddError: number 7"),
        ("die", TaskLostError, "a process of the pool died"),
    ],
)
def test_what_goes_wrong_in_a_process_is_raised_here(
    pool: ProcessPool, what: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        run(pool, [Scripted(what)])
    if kind is not TaskLostError:
        assert "pool_tasks.py" in "".join(raised.value.__notes__)


def test_a_process_that_dies_between_tasks_is_lost_as_well(pool: ProcessPool) -> None:
    ((_, pid),) = found(run(pool, [Scripted("tell")])).values()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    with pytest.raises(TaskLostError, match="a process of the pool died"):
        run(pool, [Scripted("tell")])


def test_a_pool_that_is_to_stop_ends_its_processes(watch: Watch, tmp_path: Path) -> None:
    parcel: Any = Parcel()
    heard: list[News] = []

    def on_news(number: int, news: News) -> None:
        heard.append(news)
        if isinstance(news, Alive):
            watch.stop.set()

    with pytest.raises(CancelledError), ProcessPool(2, parcel, watch.check) as pool:
        pool.run([Scripted("stay", tmp_path)], on_news)
    (pid,) = (int(path.name) for path in tmp_path.iterdir())
    assert not is_alive(pid)


ENDLESS = """
import sys, threading
from pathlib import Path
from service.work.processes.lifeline import StopCheck
from service.work.pools.processes import ProcessPool
from tests.service.work.pool_tasks import Parcel, Scripted
if __name__ == "__main__":
    with ProcessPool(2, Parcel(), StopCheck(threading.Event(), lambda: None)) as pool:
        pool.run([Scripted("stay", Path(sys.argv[1]))] * 2, lambda number, news: None)
"""


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """Starts a process with a pool; process ids: its own, and those of two that are at work."""
    script, folder = tmp_path / "endless.py", tmp_path / "pids"
    script.write_text(ENDLESS)
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started: list[subprocess.Popen[bytes]] = []

    def start() -> list[int]:
        command = [sys.executable, str(script), str(folder)]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        wait_for(lambda: len(list(folder.iterdir())) == 2, 60)
        return [started[-1].pid, *(int(path.name) for path in folder.iterdir())]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_pools_processes_end_with_the_process_that_is_killed(
    endless: Callable[[], list[int]],
) -> None:
    own, *others = endless()
    assert all(map(is_alive, others))
    os.kill(own, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, others)))
