"""Whole jobs on a Ray cluster, and what happens to it: nothing that can be seen in the result.

Real workers, a real cluster and PostgreSQL. A task's process stands still where a fault is to hit.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.record.jobs import cancel_job, get_job
from service.record.models import Status
from service.work.progress import Stage
from tests.service.conftest import new_postgresql_database, shapes
from tests.service.processes import is_alive, wait_for
from tests.service.ray_cluster import RayCluster
from tests.service.work.test_faults import Files, Site, open_site

pytest.importorskip("ray", reason="Ray is not installed: pip install 'tinyfit[ray]'")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        cluster.start(num_nodes=2)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    with new_postgresql_database() as url:
        yield url


@pytest.fixture
def open_with(tmp_path: Path, split_files: Files) -> Iterator[Callable[..., Site]]:
    """Opens a data folder whose workers have these settings.

    With so many validation images a task takes long enough to be found at it, and races.
    """
    files = split_files | shapes(prefix="shapes/val/", per_class=150, seed=2)
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


@pytest.fixture
def on_ray(
    cluster: RayCluster,
    postgresql_url: str,
    open_with: Callable[..., Site],
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as only_here:
        only_here.setenv("TINYFIT_DATABASE_URL", postgresql_url)
        return open_with(ray_address=cluster.address, ray_patience_seconds=4.0)


@pytest.fixture
def reference(open_with: Callable[..., Site]) -> dict[str, Any]:
    """The result of the job in a worker's own process."""
    site = open_with()
    job_id = site.post()
    site.start_worker()
    site.wait(job_id)
    site.stop_workers()
    return site.result(job_id)


def stage_of(site: Site, job_id: str) -> str | None:
    return get_job(site.database, job_id).stage


def test_nodes_and_clusters_that_die_change_nothing(
    cluster: RayCluster, on_ray: Site, reference: dict[str, Any]
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
def test_a_job_that_ends_takes_its_tasks_with_it(
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
