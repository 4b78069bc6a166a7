"""What docs/operations.md says is there, is there."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.api.app import create_app
from service.cli.main import _parser
from service.client.settings import ClientSettings
from service.settings import Settings
from tinytl.units import parse_size

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SHELL = "".join(re.findall(r"^```bash\n(.*?)^```", OPERATIONS, re.MULTILINE | re.DOTALL))


def test_every_setting_is_documented() -> None:
    documented = re.findall(r"^\| `TINYFIT_(\w+)`", OPERATIONS, re.MULTILINE)
    assert documented == [
        name.upper() for name in (*Settings.model_fields, *ClientSettings.model_fields)
    ]


def test_documented_defaults_are_true() -> None:
    rows = dict(re.findall(r"^\| `TINYFIT_(\w+)` \| (.*?) \|", OPERATIONS, re.MULTILINE))
    defaults = {
        name: field.default
        for fields in (Settings.model_fields, ClientSettings.model_fields)
        for name, field in fields.items()
        if field.default is not None
    }
    assert len(defaults) > 20
    for name, default in defaults.items():
        shown = rows[name.upper()].strip("`")
        if isinstance(default, str | Path):
            assert shown == str(default), name
        else:
            found = parse_size(shown) if shown.endswith("B") else float(shown)
            assert found == default, name


@pytest.mark.usefixtures("database")
def test_every_route_is_documented(settings: Settings) -> None:
    text = re.sub(r"\{\w+\}", "{id}", OPERATIONS)
    for path, operations in create_app(settings).openapi()["paths"].items():
        for method in set(operations) & {"get", "post", "put", "patch", "delete"}:
            assert f"`{method.upper()} {re.sub(r'{.*}', '{id}', path)}`" in text


def test_every_command_is_known() -> None:
    lines = SHELL.replace("\\\n", " ").splitlines()
    commands = [
        shlex.split(line, comments=True)
        for line in (re.sub(r"^docker compose run --rm \w+ ", "", line) for line in lines)
        if line.startswith("tinyfit ")
    ]
    assert len(commands) > 20
    for command in commands:
        _parser().parse_args(command[1:])
    shown = {command[1] for command in commands}
    assert shown >= {"serve", "worker", "workers", "submit", "list", "watch", "download", "keys"}


@pytest.mark.usefixtures("database")
def test_every_metric_is_documented(settings: Settings) -> None:
    with_requests = create_app(settings).state.metrics
    text = with_requests.render().decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert "tinyfit_jobs" in names
    assert {name for name in names if name not in OPERATIONS} == set()
    documented = set(re.findall(r"`(tinyfit_\w+?)(?:_total)?`", OPERATIONS)) - {"tinyfit_data"}
    assert documented == names


def test_the_python_uses_what_there_is() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", OPERATIONS, re.MULTILINE | re.DOTALL)
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names)
    client = importlib.import_module("service.client").Client
    called = set(re.findall(r"client\.(\w+)\(", program))
    assert called == {"upload", "submit", "wait", "download"}
    assert all(hasattr(client, name) for name in called)
