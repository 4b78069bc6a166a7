"""The command `tinyfit`. Exit status: 0 done, 2 bad usage or input, 1 failure.

Heavy imports wait until a command needs them, so that --help and errors are quick.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.settings import Settings

DONE, FAILED, BAD_INPUT = 0, 1, 2

Answer = tuple[dict[str, Any], str] | None
"""What a command says: as JSON, and as text for people."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        answer = options.run(options)
    except KeyboardInterrupt:
        return _fail("stopped", FAILED)
    except Exception as error:
        status = _status_of(error)
        if status is None:
            raise
        return _fail(_one_line(error), status)
    if answer is not None:
        as_json, as_text = answer
        print(json.dumps(as_json) if options.json else as_text)
    return DONE


def _fail(message: str, status: int) -> int:
    print(f"tinyfit: {message}", file=sys.stderr)
    return status


def _status_of(error: Exception) -> int | None:
    """The exit status that an error stands for; None for a defect of this program."""
    from pydantic import ValidationError
    from sqlalchemy.exc import SQLAlchemyError

    from search.errors import SearchError
    from service.errors import ConflictError, InputError, NotFoundError, ServiceError
    from tinytl.errors import TinyTLError

    bad_input = (
        *(InputError, NotFoundError, ConflictError),
        *(TinyTLError, SearchError, ValidationError),
    )
    if isinstance(error, bad_input):
        return BAD_INPUT
    return FAILED if isinstance(error, ServiceError | SQLAlchemyError | OSError) else None


def _one_line(error: Exception) -> str:
    from pydantic import ValidationError
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, DBAPIError):
        return f"the database does not work: {error.orig}"
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, found['loc'])) or 'settings'} {found.get('input')!r}: "
            f"{found['msg']}"
            for found in error.errors()
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename!r}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _settings(options: argparse.Namespace) -> Settings:
    """Settings from the environment, with what the command line says on top."""
    from service.settings import Settings

    return Settings(**_given(options, ("data_dir", "host", "port")))


def _given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The options that were given on the command line, by name."""
    found = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s"
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _serve(options: argparse.Namespace) -> Answer:
    from service.serving import serve

    _log_to_stderr()
    serve(_settings(options), with_worker=not options.no_worker)
    return None


def _worker(options: argparse.Namespace) -> Answer:
    from service.working import work

    _log_to_stderr()
    work(_settings(options), with_parent=options.with_parent)
    return None


def _db_upgrade(options: argparse.Namespace) -> Answer:
    from service.database import Database

    url = _settings(options).resolved_database_url
    database = Database(url)
    database.upgrade()
    shown = database.engine.url.render_as_string(hide_password=True)
    database.close()
    return {"database": shown, "upgraded": True}, f"{shown} is up to date"


def _supernets(options: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from search.registry import list_supernets
    from tinytl.units import format_bytes

    found = list_supernets(_settings(options).supernet_cache_dir.expanduser())
    lines = [
        f"{info.id:<56} {info.source:<9} "
        f"{format_bytes(info.bytes) if info.bytes else '':>9}  "
        f"{'here' if info.cached else 'fetched on first use'}"
        for info in found
    ]
    return {"supernets": [asdict(info) for info in found]}, "\n".join(lines)


def _adapt(options: argparse.Namespace) -> Answer:
    from service.adapting import adapt
    from service.console import Meter
    from service.schemas import JobRequest, JobSettings
    from tinytl.plan import Plan
    from tinytl.units import format_bytes

    supernet = options.supernet
    if supernet and Path(supernet).is_file():
        supernet = str(Path(supernet).resolve())
    asked = {
        "dataset": "",
        "memory_limit": options.memory_limit,
        "name": options.name,
        "method": options.method,
        "supernet": supernet,
        "settings": _given(options, JobSettings.model_fields),
    }
    request = JobRequest.model_validate(
        {name: value for name, value in asked.items() if value is not None}
    )
    job = adapt(options.data, request, options.output, _settings(options), Meter(sys.stderr))
    assert job.result is not None
    assert job.result.checkpoint is not None
    result = job.result
    text = (
        f"test accuracy    {result.test_accuracy:.1%} "
        f"(head-only training: {result.head_only_test_accuracy:.1%})\n"
        f"training peak    {format_bytes(result.measured_peak_bytes)} measured, "
        f"{format_bytes(result.predicted_peak_bytes)} predicted, "
        f"limit {format_bytes(job.memory_limit_bytes)}\n"
        f"plan             {Plan.from_dict(result.plan).describe()}\n"
        f"checkpoint       {options.output / 'model.tinyfit.zip'}"
    )
    return job.model_dump(mode="json"), text


def _price(options: argparse.Namespace) -> Answer:
    from service.cli_price import price_file

    return price_file(options.spec, accounting=options.accounting, plan=options.plan)


def _measure(options: argparse.Namespace) -> Answer:
    from service.cli_price import measure_file

    return measure_file(options.spec, plan=options.plan, limit_bytes=options.memory_limit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinyfit",
        description="Fits a vision model to your images and to your device's training memory.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], Answer], text: str, within: Any = commands
    ) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = within.add_parser(name, help=text, description=text)
        command.add_argument(
            "--json", action="store_true", help="print one JSON object as the last line"
        )
        command.set_defaults(run=run)
        return command

    serve = add("serve", _serve, "serve the HTTP API and page, with a local worker")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on; 0 takes any free one (8000)")
    _add_data_dir(serve)
    serve.add_argument("--no-worker", action="store_true", help="workers run elsewhere")

    worker = add("worker", _worker, "work on queued jobs")
    _add_data_dir(worker)
    worker.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)

    _add_adapt_arguments(add("adapt", _adapt, "fit a model to a folder or zip, without a server"))

    price = add("price", _price, "the memory that training a network takes, by formula")
    price.add_argument("spec", type=Path, metavar="SPEC.json")
    price.add_argument(
        "--accounting",
        choices=("peak", "published"),
        default="peak",
        help="everything that training holds at its peak, or the TinyTL paper's count (peak)",
    )
    _add_plan(price, "whole batches at once")
    _add_measure_arguments(add("measure", _measure, "the memory and time of real training steps"))

    add("supernets", _supernets, "the supernets that jobs can start from")

    database = commands.add_parser("db", help="look after the database")
    database_commands = database.add_subparsers(required=True, metavar="COMMAND")
    _add_data_dir(add("upgrade", _db_upgrade, "bring the database up to date", database_commands))
    return parser


def _add_data_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data-dir", type=Path, help="datasets, results and the embedded database (./data)"
    )


def _add_plan(command: Any, otherwise: str) -> None:
    command.add_argument(
        "--plan",
        metavar="PLAN.json",
        help="a file or JSON; otherwise the plan in SPEC.json, or else " + otherwise,
    )


def _add_measure_arguments(measure: argparse.ArgumentParser) -> None:
    from tinytl.planner import REASONABLE_SLOWDOWN

    measure.add_argument("spec", type=Path, metavar="SPEC.json")
    plan = measure.add_mutually_exclusive_group()
    _add_plan(
        plan,
        "the leanest, with 16-bit trained weights too, whose estimated step is at most "
        f"{REASONABLE_SLOWDOWN:g} times the fastest's",
    )
    plan.add_argument(
        "--memory-limit",
        type=_size,
        metavar="SIZE",
        help="with the fastest plan predicted to fit it, whatever plan is in SPEC.json",
    )


def _add_adapt_arguments(adapt: argparse.ArgumentParser) -> None:
    adapt.add_argument("data", type=Path, metavar="DATA", help="folder or zip of class folders")
    adapt.add_argument(
        "--memory-limit", required=True, metavar="SIZE", help="for training: 24MB, 1.5GB, bytes"
    )
    adapt.add_argument("--output", type=Path, default=Path("tinyfit-output"), metavar="DIR")
    adapt.add_argument("--name", default="", help="of the job (the data's)")
    adapt.add_argument("--supernet", help="an id that `tinyfit supernets` lists, or a file")
    adapt.add_argument("--method", help="what is trained (lite_residual+bias)")
    adapt.add_argument("--trials", type=int, help="candidates to score")
    adapt.add_argument("--epochs", type=int, help="of the final training")
    adapt.add_argument("--adapt-steps", type=int, help="of the supernet's adaptation")
    adapt.add_argument("--seed", type=int, help="the same seed gives the same result (0)")
    adapt.add_argument("--batch-size", type=int, help="images per update")
    adapt.add_argument(
        "--resolutions", type=_integers, metavar="PX,PX", help="image sides to choose from"
    )
    adapt.add_argument("--learning-rate", type=float, help="peak rate of the final training")
    adapt.add_argument("--label-smoothing", type=float)
    adapt.add_argument("--min-crop-scale", type=float, help="smallest area of a training crop")
    adapt.add_argument(
        "--no-horizontal-flip",
        dest="horizontal_flip",
        action="store_false",
        default=None,
        help="mirrored images mean something else: text, digits",
    )


def _size(text: str) -> int:
    from tinytl.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers with commas between, such as 48,64, but got {text!r}"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
