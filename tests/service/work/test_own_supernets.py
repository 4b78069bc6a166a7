"""Whole jobs with supernet files of a user's own, pretrained with lite residuals."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

import tinytl
from search.elastic.supernet import untrained_supernet
from search.pretraining.output import write_supernet
from search.space.architecture import SupernetSpec
from service.contract.requests import JobRequest
from service.contract.status import Status
from service.datasets.store import import_dataset
from service.record.claims import Claim
from service.record.db.database import Database
from service.record.files.artifacts import BUNDLE
from service.record.jobs import create_job, get_job
from service.settings import Settings
from service.work.job.pipeline import run_job
from tests.service.support.stores import stored_path
from tinytl.description.config import GROUP_NORM

SHIFT = 0.125
SETTINGS = {"resolutions": [32], "trials": 3, "epochs": 1, "adapt_steps": 3, "batch_size": 4}


@pytest.fixture
def own_supernet(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a supernet of this id whose lite residuals can be told from new ones."""

    def write(supernet_id: str) -> Path:
        supernet = untrained_supernet(
            SupernetSpec.parse(supernet_id),
            5,
            lite_residuals=True,
            generator=torch.Generator().manual_seed(0),
        )
        for module in supernet.lite_residuals.values():
            module.final_bn.bias.fill_(SHIFT)
        path = tmp_path / f"{supernet_id}.safetensors"
        write_supernet(path, supernet, {"architecture": supernet_id})
        return path

    return write


@pytest.mark.parametrize(
    ("supernet_id", "norm"),
    [("ofa_proxyless_d2_e34_k35_w0.2_gn_own", "group"), ("ofa_mbv3_d2_e34_k35_w0.2", "batch")],
)
def test_a_job_from_pretrained_lite_residuals_to_the_bundle(
    supernet_id: str,
    norm: str,
    own_supernet: Callable[[str], Path],
    settings: Settings,
    database: Database,
    claim: Callable[..., Claim],
    make_zip: Callable[[Mapping[str, bytes]], Path],
    flat_files: dict[str, bytes],
) -> None:
    dataset, _ = import_dataset(make_zip(flat_files), settings=settings, database=database)
    request = JobRequest.model_validate(
        {
            "dataset": dataset.id,
            "memory_limit": 4_000_000,
            "supernet": str(own_supernet(supernet_id)),
            "method": "lite_residual+bias",
            "settings": SETTINGS,
        }
    )
    job_id = create_job(database, request)[0].id
    run_job(settings, database, claim(), lambda: False)
    job = get_job(database, job_id)
    assert job.status is Status.SUCCEEDED
    assert job.result is not None
    peaks = job.result["measured_peak_bytes"], job.result["predicted_peak_bytes"]
    assert peaks[0] <= peaks[1] <= 4_000_000
    assert peaks[1] - peaks[0] <= 256_000 or peaks[0] > 0.98 * peaks[1]
    model = tinytl.load(stored_path(settings, database, job_id, BUNDLE))
    config = model.network.config
    assert config.norm.kind == norm
    assert (config.norm == GROUP_NORM) == (norm == "group")
    shifts = [
        value
        for name, value in model.network.state_dict().items()
        if name.endswith("lite_residual.final_bn.bias")
    ]
    assert len(shifts) == len(config.blocks) - 1
    assert all((shift == SHIFT).all() for shift in shifts)  # lite_residual+bias leaves them alone
