"""Whole jobs in several processes and on a Ray cluster, and faults there: nothing that can be seen
in the result.

Real workers and real trainings, tiny ones; on Ray with a real cluster and PostgreSQL. A task's
process stands still where a fault is to hit.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.contract.status import Status
from service.record.jobs import cancel_job, get_job
from service.work.job.progress import Stage
from tests.service.conftest import new_postgresql_database, shapes
from tests.service.support.processes import descendants, is_alive, wait_for
from tests.service.support.ray_cluster import RayCluster
from tests.service.work.test_faults import Files, Site, open_site

pytestmark = pytest.mark.long

OpenSite = Callable[..., Site]


@pytest.fixture(scope="module")
def files() -> Files:
    """With so many validation images a task takes long enough to be found at it, and races."""
    return (
        shapes(prefix="shapes/train/", per_class=12)
        | shapes(prefix="shapes/test/", per_class=4, seed=1)
        | shapes(prefix="shapes/val/", per_class=150, seed=2)
    )


@pytest.fixture
def open_with(tmp_path: Path, files: Files) -> Iterator[OpenSite]:
    """Opens a data folder whose workers have these settings."""
    sites: list[Site] = []

    def open_one(**changed: Any) -> Site:
        site = open_site(tmp_path / str(len(sites)), files)
        sites.append(site)
        site.settings = site.settings.model_copy(update=changed)
        return site

    yield open_one
    for site in sites:
        site.stop_workers()
        site.database.close()


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the first test that needs it has found."""
    return {}


@pytest.fixture
def reference(open_with: OpenSite, found: dict[str, Any]) -> dict[str, Any]:
    """The result of the job in its own process."""
    if not found:
        site = open_with()
        job_id = site.post()
        site.start_worker()
        site.wait(job_id)
        site.stop_workers()
        found |= site.result(job_id)
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'tinyfit[ray]'")
    cluster = RayCluster()
    try:
        cluster.start(num_nodes=2)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def on_ray(
    cluster: RayCluster,
    open_with: OpenSite,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    with new_postgresql_database() as url:
        monkeypatch.setenv("TINYFIT_DATABASE_URL", url)
        site = open_with(ray_address=cluster.address, ray_patience_seconds=4.0)
        yield site
        site.stop_workers()
        site.database.close()


def stage_of(site: Site, job_id: str) -> str | None:
    return get_job(site.database, job_id).stage


@pytest.mark.slow
def test_several_processes_find_the_same_and_die_with_their_job(
    open_with: OpenSite, reference: dict[str, Any]
) -> None:
    """The job's process is killed alone while others work for it."""
    site = open_with(pool_processes=2)
    job_id = site.post()
    worker = site.start_worker()
    wait_for(lambda: stage_of(site, job_id) == Stage.SEARCH, 120)
    (child,) = (pid for pid in descendants(worker.pid) if os.getsid(pid) == pid)
    wait_for(lambda: len(descendants(child)) >= 2)
    others = descendants(child)
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, others)))
    site.wait(job_id)
    assert site.result(job_id) == reference
    assert site.outcomes(job_id) == ["lost", "succeeded"]
    site.check_tidy(job_id)


@pytest.mark.slow
def test_nodes_and_clusters_that_die_change_nothing(
    reference: dict[str, Any], cluster: RayCluster, on_ray: Site
) -> None:
    """A node while candidates are scored and one while networks are trained, then all of them."""
    job_id = on_ray.post()
    on_ray.start_worker()

    task = cluster.hold_task()
    assert stage_of(on_ray, job_id) == Stage.SEARCH
    cluster.kill_node_of(task)
    cluster.add_node()

    wait_for(lambda: stage_of(on_ray, job_id) == Stage.TRAIN, 120)
    task = cluster.hold_task()
    cluster.kill_node_of(task)
    cluster.add_node()

    cluster.hold_task()
    assert on_ray.outcomes(job_id) == []
    cluster.kill()
    wait_for(lambda: on_ray.outcomes(job_id), 60)
    cluster.start(num_nodes=2)
    on_ray.wait(job_id)

    assert on_ray.result(job_id) == reference
    *broken, last = on_ray.outcomes(job_id)
    assert (set(broken), last) == ({"released"}, "succeeded")
    assert get_job(on_ray.database, job_id).lost_attempts == 0
    on_ray.check_tidy(job_id)
    wait_for(lambda: not cluster.task_processes())


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_job_that_ends_takes_its_tasks_on_the_cluster_with_it(
    cluster: RayCluster, on_ray: Site, how: str
) -> None:
    job_id = on_ray.post()
    worker = on_ray.start_worker()
    task = cluster.hold_task()
    if how == "cancelled":
        cancel_job(on_ray.database, job_id)
        on_ray.wait(job_id, Status.CANCELLED)
    else:
        worker.kill()
        worker.wait()
        on_ray.workers.clear()
    wait_for(lambda: not is_alive(task))
    wait_for(lambda: not cluster.task_processes())


ON_GPU = """
import sys, threading
import numpy as np
from service.errors import ServiceError
from service.work.processes.lifeline import StopCheck
from service.work.pools import cluster, room
from service.work.pools.tasks import Shared
from tests.service.work.pool_tasks import Scripted
from tinytl.training.data import ImageSplit, ImageStore
cluster._ASK_EVERY_SECONDS, room._SAY_AFTER_SECONDS = 0.2, 0.3
split = ImageSplit(np.zeros((1, 3, 4, 4), np.uint8), np.zeros(1, np.int64))
shared = Shared(store=ImageStore({"train": split, "val": split}, ["class"], 4))
check = StopCheck(threading.Event(), lambda: None)
say = lambda message: print(message, flush=True)
options = {"patience_seconds": 30.0, "gpus_per_task": 0.5, "say": say}
with cluster.RayPool(sys.argv[1], shared, check, **options) as pool:
    try:
        pool.run([Scripted("tell")], lambda number, news: None)
    except ServiceError as error:
        say(error)
"""


@pytest.mark.slow
def test_a_task_for_a_gpu_waits_for_a_node_with_one_and_runs_there(cluster: RayCluster) -> None:
    """The GPU is one that Ray is only told of, so the node has to say that torch finds none."""
    waiting = subprocess.Popen(
        [sys.executable, "-c", ON_GPU, cluster.address],
        env={**os.environ, **cluster.environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    with waiting:
        try:
            assert waiting.stdout is not None
            assert "no node of the Ray cluster has CPU 1 and GPU 0.5" in waiting.stdout.readline()
            node = cluster.start_node("--num-gpus=1")
            told = waiting.communicate(timeout=60)[0]
        finally:
            waiting.kill()
    cluster.kill_node_of(node)
    assert "the Ray node 127.0.0.1 gave a task 0.5 GPUs, but its torch" in told.splitlines()[-1]
