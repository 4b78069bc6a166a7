"""What the README and the design say is there, is there."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from search.space.spec import parse_spec
from service.api.app import create_app
from service.cli.main import _parser
from service.contract.requests import JobRequest
from service.settings import Settings
from tinytl.description.method import Method

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()
OWN_PACKAGES = ("tinytl", "search", "service")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def _prose() -> str:
    return re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)


def _shell_lines() -> list[str]:
    return "".join(_blocks("bash")).replace("\\\n", " ").splitlines()


def _commands(program: str) -> list[list[str]]:
    """The arguments of every call of program in the shell blocks."""
    lines = [line for line in _shell_lines() if line.startswith(f"{program} ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """The options of the parser and of all its commands."""
    found = set(parser._option_string_actions)
    return found.union(*(_options(command) for command in _subparsers(parser).values()))


def test_every_command_is_known() -> None:
    commands = _commands("tinyfit")
    assert {command[0] for command in commands} >= {"adapt", "serve", "price", "measure"}
    for command in commands:
        _parser().parse_args(command)


def test_every_command_in_the_text_is_known() -> None:
    mentions = [text.split() for text in re.findall(r"`tinyfit ([^`]+)`", _prose())]
    assert mentions
    for words in mentions:
        parser = _parser()
        for word in words:
            if word.startswith("-"):
                assert word in _options(parser)
            elif commands := _subparsers(parser):
                parser = commands[word]


def test_every_option_in_the_text_is_known() -> None:
    for option in re.findall(r"`(--[a-z-]+)", _prose()):
        assert option in _options(_parser())


def test_every_make_target_is_known() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [command[0] for command in _commands("make")]
    named += re.findall(r"`make ([a-z]+)`", README)
    assert {"demo", "test", "setup", "check"} <= set(named) <= targets


def test_every_curl_is_answered(settings_in_tmp: Settings) -> None:
    paths = create_app(settings_in_tmp).openapi()["paths"]
    routes = {re.sub(r"\{\w+\}", "ID", path) for path in paths}
    asked = re.findall(r"\$URL(/[\w$/]+)", "\n".join(_shell_lines()))
    assert len(asked) >= 5
    assert {re.sub(r"\$\w+", "ID", path) for path in asked} <= routes


def test_the_job_of_the_curl_is_valid() -> None:
    (body,) = re.findall(r"-d '(\{.*\})'", "\n".join(_shell_lines()))
    JobRequest.model_validate_json(body.replace("'$DATASET'", "some-dataset"))


def test_the_spec_is_valid() -> None:
    (content,) = _blocks("json")
    parse_spec(json.loads(content))


def test_the_python_finds_what_it_imports() -> None:
    (program,) = _blocks("python")
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_method_is_in_the_table() -> None:
    named = re.findall(r"^\| `([a-z_+]+)`.*\|$", README, re.MULTILINE)
    assert named == [method.value for method in Method]


def test_every_file_of_the_tree_exists() -> None:
    tree = _blocks("text")[-1]
    folder = ROOT
    paths = []
    for line in tree.splitlines():
        match = re.match(r"([│├└─ ]*)(\S+)  +\S|([│├└─ ]*)(\S+)$", line)
        assert match is not None, line
        indent, name = match[1] or match[3] or "", match[2] or match[4]
        paths.append((folder if indent else ROOT) / name)
        if name.endswith("/") and not indent:
            folder = ROOT / name
    assert len(paths) > 20
    assert [path for path in paths if not path.exists()] == []


@pytest.mark.parametrize("document", ["README.md", "docs/design.md", "docs/operations.md"])
def test_every_link_resolves(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text())


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_every_room_is_in_the_design() -> None:
    house = re.findall(r"^```\n(.*?)^```", DESIGN, re.MULTILINE | re.DOTALL)[0]
    rooms = {
        path.parent.name
        for package in OWN_PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert {room for room in rooms if f"{room}/" not in house} == set()


def test_every_module_says_what_it_holds() -> None:
    silent = [
        path.relative_to(ROOT).as_posix()
        for package in OWN_PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
    ]
    assert silent == []


@pytest.fixture
def settings_in_tmp(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)
