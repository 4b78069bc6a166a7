"""What a job's process makes of what Ray says, without a cluster."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch

from service.contract.status import EventKind
from service.errors import ClusterLostError, ServiceError, TaskLostError
from service.record.events import list_events
from service.work.job.job_run import JobRun
from service.work.pools.news import Alive, Done, Failed, News, Started, Step
from service.work.processes.exits import Exit
from tests.service.work.pools.test_pools import Watch
from tinytl.errors import CancelledError

exceptions = pytest.importorskip(
    "ray.exceptions", reason="Ray is not installed: pip install 'tinyfit[ray]'"
)
cluster = pytest.importorskip("service.work.pools.cluster")


@dataclass(frozen=True)
class Task:
    """What is left of it: each step takes one."""

    left: int = 3

    def after(self, news: News) -> Self:
        return replace(self, left=self.left - 1) if isinstance(news, Step) else self


@dataclass
class FakeRay:
    """Ray, as far as the pool asks it; each task that is given tells what the next script says.

    None in a script: nothing is told at one look. Errors are raised.
    """

    scripts: list[list[News | Exception | None]]
    given: list[Task] = field(default_factory=list)
    cancelled: list[Any] = field(default_factory=list)
    is_alive: bool = True
    num_gpus: list[int] = field(default_factory=lambda: [0])
    """Of the other node, at one look after another; the last stays."""

    def remote(self, **options: Any) -> Callable[..., Any]:
        return lambda function: SimpleNamespace(remote=self.give)

    def give(self, task: Task, references: list[Any], **options: Any) -> Any:
        self.given.append(task)
        return _Stream(list(self.scripts.pop(0)))

    def wait(self, streams: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        for stream in streams:
            if stream.script and stream.script[0] is None:
                stream.script.pop(0)
            else:
                return [stream], []
        return [], streams

    def get(self, told: Any) -> Any:
        if isinstance(told, Exception):
            raise told
        return told

    def nodes(self) -> list[dict[str, Any]]:
        num_gpus = self.num_gpus.pop(0) if len(self.num_gpus) > 1 else self.num_gpus[0]
        there = {"CPU": 64.0, **({"GPU": float(num_gpus)} if num_gpus else {})}
        return [
            {"NodeID": "here", "Alive": self.is_alive, "Resources": {"GPU": 8.0}},
            {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
            {"NodeID": "there", "Alive": True, "Resources": there},
        ]

    def cancel(self, stream: Any, *, force: bool) -> None:
        assert force
        self.cancelled.append(stream)

    def shutdown(self) -> None: ...


@dataclass(eq=False)
class _Stream:
    script: list[Any]

    def __next__(self) -> Any:
        if not self.script:
            raise StopIteration
        return self.script.pop(0)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def run(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[News]]:
    """Runs one task on a cluster that tells these scripts."""

    def run(ray: FakeRay, **options: Any) -> list[News]:
        monkeypatch.setattr(cluster, "ray", ray)
        told: list[News] = []
        shared: Any = None
        options = {"patience_seconds": 60.0, **options}
        with cluster.RayPool("auto", shared, watch.check, **options) as pool:
            pool._start, pool._node_id = ray.remote()(None), "here"
            pool._ask_every_seconds = 0.0
            pool.run([Task()], lambda number, news: told.append(news))
        return told

    return run


def died() -> Exception:
    error: Exception = exceptions.WorkerCrashedError()
    return error


def test_only_news_are_beats_once_a_task_runs(
    run: Callable[..., list[News]], watch: Watch
) -> None:
    told = run(FakeRay([[Started(), None, None, None, Alive(), Done()]]))
    assert told == [Started(), Alive(), *told[2:]]
    assert watch.num_beats == len(told) + 1  # before it had started, the cluster answered


def test_a_living_cluster_in_which_tasks_wait_is_a_beat(
    run: Callable[..., list[News]], watch: Watch
) -> None:
    run(FakeRay([[None, None, None, None, Started(), Done()]]))
    assert watch.num_beats >= 4 + 2


@pytest.mark.parametrize(
    ("num_gpus", "gpus_per_task", "said"),
    [
        ([0], 0.0, []),
        ([1], 0.5, []),
        ([0], 0.5, ["tasks wait"]),
        ([0, 0, 0, 1], 0.5, ["tasks wait", "now"]),
        ([0, 0, 1, 0], 0.5, ["tasks wait", "now", "tasks wait"]),
    ],
)
def test_it_is_told_while_no_node_could_run_a_task(
    run: Callable[..., list[News]],
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    num_gpus: list[int],
    gpus_per_task: float,
    said: list[str],
) -> None:
    monkeypatch.setattr("service.work.pools.room._SAY_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    messages: list[str] = []
    ray = FakeRay([[*[None] * 6, Started(), Done()]], num_gpus=num_gpus)
    run(ray, gpus_per_task=gpus_per_task, say=messages.append)
    assert len(messages) == len(said)
    for message, words in zip(messages, said, strict=True):
        assert words in message
        assert ("no node of the Ray cluster has CPU 3 and GPU 0.5" in message) == ("wait" in words)
    assert watch.num_beats >= 6


def test_a_node_that_is_away_for_moments_is_not_told(run: Callable[..., list[News]]) -> None:
    messages: list[str] = []
    ray = FakeRay([[None, None, None, Started(), Done()]])
    run(ray, gpus_per_task=1.0, say=messages.append)
    assert messages == []


def test_a_job_tells_its_log_what_its_tasks_wait_for(make_run: Callable[..., JobRun]) -> None:
    job = make_run()
    changed = {"ray_address": "auto", "ray_gpus_per_task": 0.5}
    job.settings = job.settings.model_copy(update=changed)
    shared: Any = None
    with job.pool(shared) as pool:
        assert pool._gpus_per_task == 0.5  # type: ignore[attr-defined]
        pool._tell("no node has a GPU")  # type: ignore[attr-defined]
    events = list_events(job.database, job.job.id)
    told = [event.detail["message"] for event in events if event.kind is EventKind.LOG]
    assert told == ["no node has a GPU"]


def test_a_task_that_dies_goes_on_from_where_it_was(run: Callable[..., list[News]]) -> None:
    ray = FakeRay([[Started(), Step(1, 3), died()], [died()], [Started(), Step(2, 3), Done()]])
    run(ray)
    assert [task.left for task in ray.given] == [3, 2, 2]
    assert ray.cancelled == []


def test_a_task_that_dies_again_and_again_is_given_up(run: Callable[..., list[News]]) -> None:
    ray = FakeRay([[died()] for _ in range(9)])
    with pytest.raises(TaskLostError, match="died 4 times on the Ray cluster"):
        run(ray)
    assert len(ray.given) == 4


def test_a_cluster_that_is_gone_is_not_the_tasks_fault(run: Callable[..., list[News]]) -> None:
    with pytest.raises(ClusterLostError, match="the Ray node of this machine"):
        run(FakeRay([[died()] for _ in range(9)], is_alive=False))


def test_what_a_task_raises_is_raised_here(run: Callable[..., list[News]]) -> None:
    with pytest.raises(ValueError, match="no good"):
        run(FakeRay([[Started(), Failed(ValueError("no good"))]]))


def test_a_node_that_can_not_run_tasks_fails_the_job(run: Callable[..., list[News]]) -> None:
    error = exceptions.RayTaskError("run_on_node", "No module named 'service'", ImportError())
    with pytest.raises(ServiceError, match="can't run tinyfit's tasks"):
        run(FakeRay([[error]]))


def test_stopping_cancels_by_force(run: Callable[..., list[News]], watch: Watch) -> None:
    watch.stop.set()
    ray = FakeRay([[None] * 9])
    with pytest.raises(CancelledError):
        run(ray)
    assert len(ray.cancelled) == 1


def test_a_node_of_another_version_is_refused() -> None:
    from service.work.pools.node import own_version, run_on_node

    task: Any = None
    options = {"num_threads": 1, "gpus_per_task": 0.0}
    (news,) = run_on_node(task, [], tinyfit_version="0.0.7", **options)
    assert isinstance(news, Failed)
    assert f"has tinyfit {own_version()}, but the worker has 0.0.7" in str(news.error)


@pytest.mark.parametrize(
    ("has_cuda", "words"),
    [
        (False, f"gave a task 0.5 GPUs, but its torch {torch.__version__} finds no CUDA"),
        (True, "too little GPU memory for tasks that take 0.5 GPUs each: .*no 3 GiB"),
    ],
)
def test_what_a_node_with_a_gpu_can_lack(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, words: str
) -> None:
    from service.work.pools import node

    class Large:
        def run(self, *args: Any) -> None:
            assert opened == [torch.device("cpu")]
            raise torch.OutOfMemoryError("no 3 GiB")

    opened: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(node, "repeatable_gpu", lambda: torch.device("cpu"))
    monkeypatch.setattr(node, "_open", lambda reference, device: opened.append(device))
    version = node.own_version()
    task: Any = Large()
    options = {"num_threads": torch.get_num_threads(), "gpus_per_task": 0.5}
    *_, news = node.run_on_node(task, [None], tinyfit_version=version, **options)
    assert isinstance(news, Failed)
    assert isinstance(news.error, ServiceError)
    assert re.search(rf"the Ray node [\d.]+ .*{words.replace('+', '.')}", str(news.error))
    assert "TINYFIT_RAY_GPUS_PER_TASK" in str(news.error)


IMPATIENT = """
import sys, time
from service.work.pools.patience import Patience
patience = Patience(0.4)
time.sleep(0.8)
patience.renew()
patience.rest()
time.sleep(0.8)
print("asked", flush=True)
patience.renew()
if sys.argv[1] == "end":
    patience.end()
    sys.exit()
time.sleep(60)
"""


@pytest.mark.parametrize(("what", "code"), [("wait", Exit.CLUSTER_LOST), ("end", 0)])
def test_patience_ends_only_while_the_cluster_is_asked(what: str, code: int) -> None:
    started = time.monotonic()
    command = [sys.executable, "-c", IMPATIENT, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (code, "asked\n")
    assert time.monotonic() - started > 1.6
