"""What the commands share: their answers, and options that several take. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from service.client import Client
    from service.record.db.database import Database
    from service.settings import Settings

DONE, FAILED, BAD_INPUT = 0, 1, 2
"""Exit statuses."""

_PATIENCE_SECONDS = 2.0
"""A command says soon that there is no server."""


class Answer(NamedTuple):
    """What a command says: as JSON, and as text for people; and its exit status."""

    as_json: dict[str, Any]
    as_text: str
    status: int = DONE


Run = Callable[[argparse.Namespace], Answer | None]


class AddCommand(Protocol):
    """Adds a command to the parser, or within those of another one."""

    def __call__(
        self, name: str, run: Run, text: str, within: Any = None
    ) -> argparse.ArgumentParser: ...


def settings_of(options: argparse.Namespace) -> Settings:
    """Settings from the environment, with what the command line says on top."""
    from service.settings import Settings

    return Settings(**given(options, ("data_dir", "host", "port", "skip_broken")))


@contextmanager
def open_database(options: argparse.Namespace) -> Iterator[Database]:
    """The installation's database, with a schema of today. Raises SchemaError."""
    from service.record.db.database import Database, ensure_schema

    url = settings_of(options).resolved_database_url
    ensure_schema(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def connected(
    options: argparse.Namespace, patience_seconds: float = _PATIENCE_SECONDS
) -> Iterator[Client]:
    """A client of the server that --url or the environment names."""
    from service.client import Client
    from service.client.settings import ClientSettings

    settings = ClientSettings()
    key = settings.api_key.get_secret_value() if settings.api_key else None
    with Client(options.url or settings.url, key, patience_seconds=patience_seconds) as client:
        yield client


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The options that were given on the command line, by name."""
    found = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def add_data_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data-dir", type=Path, help="datasets, results and the embedded database (./data)"
    )


def size(text: str) -> int:
    from tinytl.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers with commas between, such as 48,64, but got {text!r}"
        ) from None


def count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0 but got {text!r}")
    return number
