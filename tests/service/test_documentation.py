import re
from pathlib import Path

import pytest

from service.api.app import create_app
from service.database import Database
from service.settings import Settings

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_setting_is_documented() -> None:
    documented = set(re.findall(r"^\| `TINYFIT_(\w+)`", OPERATIONS.read_text(), re.MULTILINE))
    assert documented == {name.upper() for name in Settings.model_fields}


@pytest.mark.usefixtures("database")
def test_every_route_is_documented(settings: Settings) -> None:
    text = re.sub(r"\{\w+\}", "{id}", OPERATIONS.read_text())
    for path, operations in create_app(settings).openapi()["paths"].items():
        for method in operations:
            assert f"{method.upper()} {re.sub(r'{.*}', '{id}', path)}" in text


def test_every_command_is_known(database: Database) -> None:
    from service.cli import _parser

    commands = re.findall(r"^\.venv/bin/tinyfit (.*?)\s*(?:#.*)?$", OPERATIONS.read_text(), re.M)
    assert len(commands) >= 4
    for command in commands:
        _parser().parse_args(command.split())
