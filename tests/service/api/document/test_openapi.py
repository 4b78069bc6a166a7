"""The OpenAPI document says what clients need to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.api.document.openapi import OPEN_OPERATIONS
from service.settings import Settings

Operation = dict[str, Any]

OPERATIONS = {
    *("upload_dataset", "list_datasets", "get_dataset", "delete_dataset", "get_contact_sheet"),
    *("create_job", "list_jobs", "get_job", "change_job", "delete_job"),
    *("cancel_job", "pause_job", "resume_job", "retry_job"),
    *("list_trials", "get_front", "list_attempts", "list_events", "get_checkpoint"),
    *("get_evaluation", "get_onnx", "predict", "get_webhook", "list_devices"),
    *("get_device_trainer", "get_device_package"),
    *("get_health", "get_readiness", "get_metrics", "list_supernets"),
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    app: FastAPI = create_app(Settings(data_dir=tmp_path_factory.mktemp("data")))
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_operations_are_called_as_what_they_do(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert sorted(ids) == sorted(OPERATIONS)


@pytest.mark.parametrize("operation_id", sorted(OPERATIONS))
def test_each_operation_is_described(document: dict[str, Any], operation_id: str) -> None:
    (found,) = [it for it in operations(document) if it[2]["operationId"] == operation_id]
    path, method, operation = found
    assert operation["summary"]
    assert operation["description"].endswith(".")
    for parameter in operation.get("parameters", []):
        assert parameter["description"].endswith("."), parameter["name"]

    responses = operation["responses"]
    for code, response in responses.items():
        content = response.get("content", {})
        assert response["description"], code
        if code in ("200", "201", "202"):
            assert content
            for media_type, body in content.items():
                assert "example" in body or media_type in ("application/zip", "image/jpeg")
        elif code >= "400" and (operation_id, code) != ("get_readiness", "503"):
            assert list(content) == ["application/problem+json"], code
            body = content["application/problem+json"]
            assert body["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert body["example"]["status"] == int(code)
        elif code < "400" and code != "206":
            assert content == {}

    expected = {"429", "500", "503"}
    if operation_id not in OPEN_OPERATIONS:
        assert operation["security"] == [{"key": []}, {}]
        expected |= {"401"}
    if "{" in path:
        expected |= {"404", "422"}
    if method == "get":
        expected |= {"304"}
    if "requestBody" in operation:
        expected |= {"413", "422"}
    assert expected <= responses.keys()


def test_the_document_holds_together(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    named = {f"#/components/schemas/{name}" for name in schemas}
    assert set(references(document)) <= named
