"""The API does what its OpenAPI document says, whatever is sent to it.

Requests are made up from the document by schemathesis, some as it allows, some not. They are the
same each time; TINYFIT_TEST_EXAMPLES asks for more than the usual few of each, and for others
each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import strategies
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.contract.status import Status
from tests.service.api.document.test_openapi import OPERATIONS

CHECKS = [
    not_a_server_error,
    *(status_code_conformance, content_type_conformance),
    *(response_headers_conformance, response_schema_conformance),
]
NUM_EXAMPLES = int(os.environ.get("TINYFIT_TEST_EXAMPLES", "0"))
FEW = 8
WITHOUT_INPUT = ("get_health", "get_readiness", "get_metrics", "list_supernets")
"""There is nothing that they could not allow."""

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True, scope="module")
def _hypothesis_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What hypothesis keeps would otherwise stay in the checkout."""
    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
    yield
    set_hypothesis_home_dir(None)


@pytest.fixture
def schema(app: FastAPI) -> schemathesis.BaseSchema:
    app.state.streams.close()  # each stream ends after its first look
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("operation_id", sorted(OPERATIONS))
def test_answers_are_as_the_document_says(
    schema: Any,
    jobs_of_each_status: dict[Status, str],
    operation_id: str,
) -> None:
    operation = schema.find_operation_by_id(operation_id)
    requests = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    if operation_id not in WITHOUT_INPUT:
        requests |= operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    job_ids = sorted(jobs_of_each_status.values())

    @hypothesis.settings(
        max_examples=NUM_EXAMPLES or FEW,
        derandomize=not NUM_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategies.booleans(), strategies.sampled_from(job_ids), requests)
    def check(is_known: bool, job_id: str, case: schemathesis.Case) -> None:
        if is_known:
            lead_to_known_rows(case, job_id)
        case.call_and_validate(checks=CHECKS)

    check()


def lead_to_known_rows(case: schemathesis.Case, job_id: str) -> None:
    """Made up ids exist next to never."""
    for name in case.path_parameters:
        case.path_parameters[name] = job_id if name == "job_id" else "d1"
    if isinstance(case.body, dict) and "dataset" in case.body:
        case.body["dataset"] = "d1"
        case.body.pop("supernet", None)
