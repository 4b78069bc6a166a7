"""The command `tinyfit`. Exit status: 0 done, 2 bad usage or input, 1 failure.

Heavy imports wait until a command needs them, so that --help and errors are quick.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.adapt import add_adapt
from service.cli.command import (
    BAD_INPUT,
    DONE,
    FAILED,
    Answer,
    Run,
    add_data_dir,
    open_database,
    settings_of,
    size,
)
from service.cli.datasets import add_datasets
from service.cli.device import add_device, joined
from service.cli.export import add_export
from service.cli.jobs import add_jobs
from service.cli.keys import add_keys
from service.cli.pretrain import add_pretrain

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = _parser().parse_args(joined(sys.argv[1:] if arguments is None else arguments))
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
        print(json.dumps(answer.as_json) if options.json else answer.as_text)
    return DONE if answer is None else answer.status


def _fail(message: str, status: int) -> int:
    from service.logs import are_json

    if are_json():
        logger.error(message)
    else:
        print(f"tinyfit: {message}", file=sys.stderr)
    return status


def _status_of(error: Exception) -> int | None:
    """The exit status that an error stands for; None for a defect of this program."""
    from pydantic import ValidationError
    from sqlalchemy.exc import SQLAlchemyError

    from search.errors import SearchError
    from service.client import ProblemError
    from service.errors import ConflictError, InputError, NotFoundError, ServiceError
    from tinytl.errors import TinyTLError

    bad_input = (
        *(InputError, NotFoundError, ConflictError),
        *(TinyTLError, SearchError, ValidationError),
    )
    if isinstance(error, bad_input):
        return BAD_INPUT
    if isinstance(error, ProblemError):
        return FAILED if error.is_transient or error.status >= 500 else BAD_INPUT
    return FAILED if isinstance(error, ServiceError | SQLAlchemyError | OSError) else None


def _one_line(error: Exception) -> str:
    from pydantic import ValidationError
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, DBAPIError):
        return f"the database does not work: {error.orig}"
    if isinstance(error, ValidationError):
        return "; ".join(map(_what_is_invalid, error.errors()))
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename!r}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _what_is_invalid(found: ErrorDetails) -> str:
    """What is wrong with several values together quotes them itself."""
    message = found["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, found["loc"]))
    return f"{where} {found['input']!r}: {message}" if where else message


def _serve(options: argparse.Namespace) -> None:
    from service.commands.serving import serve
    from service.logs import set_up_logs

    settings = settings_of(options)
    set_up_logs(settings.log_format)
    serve(settings, with_worker=not options.no_worker)


def _worker(options: argparse.Namespace) -> None:
    from service.logs import set_up_logs
    from service.work.working import work

    settings = settings_of(options)
    set_up_logs(settings.log_format)
    work(settings, with_parent=options.with_parent)


def _workers(options: argparse.Namespace) -> Answer:
    """Fails where there is none, so that it serves as a health check."""
    import socket
    from datetime import UTC, datetime

    from service.record.presence import list_workers

    with open_database(options) as database:
        workers = list_workers(database, options.within)
    if options.here:
        host = socket.gethostname()
        workers = [worker for worker in workers if worker.name.rpartition(":")[0] == host]
    rows = [
        {
            "name": worker.name,
            "started_at": datetime.fromtimestamp(worker.started_at, UTC).isoformat(),
            "seen_at": datetime.fromtimestamp(worker.seen_at, UTC).isoformat(),
        }
        for worker in workers
    ]
    lines = [f"{row['name']}  since {row['started_at'][:19]}Z" for row in rows]
    text = "\n".join(lines) or f"no worker has been heard of for {options.within:g} s"
    return Answer({"workers": rows}, text, DONE if rows else FAILED)


def _db_upgrade(options: argparse.Namespace) -> Answer:
    from service.record.db.database import Database

    url = settings_of(options).resolved_database_url
    database = Database(url)
    database.upgrade()
    shown = database.shown_url
    database.close()
    return Answer({"database": shown, "upgraded": True}, f"{shown} is up to date")


def _supernets(options: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from search.supernets.registry import list_supernets
    from tinytl.units import format_bytes

    found = list_supernets(settings_of(options).supernet_cache_dir.expanduser())
    lines = [
        f"{info.id:<56} {info.source:<9} "
        f"{format_bytes(info.bytes) if info.bytes else '':>9}  "
        f"{'here' if info.cached else 'fetched on first use'}"
        for info in found
    ]
    return Answer({"supernets": [asdict(info) for info in found]}, "\n".join(lines))


def _devices(options: argparse.Namespace) -> Answer:
    from service.contract.devices import list_devices
    from tinytl.units import format_bytes

    found = list_devices(settings_of(options))
    lines = [
        f"{device.id:<16} {format_bytes(device.memory_bytes):>9}  {device.name}: {device.source}"
        for device in found
    ]
    as_json = {"devices": [device.model_dump(mode="json") for device in found]}
    return Answer(as_json, "\n".join(lines))


def _price(options: argparse.Namespace) -> Answer:
    from service.cli.price import price_file

    return Answer(*price_file(options.spec, accounting=options.accounting, plan=options.plan))


def _measure(options: argparse.Namespace) -> Answer:
    from service.cli.price import measure_file

    return Answer(*measure_file(options.spec, plan=options.plan, limit_bytes=options.memory_limit))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinyfit",
        description="Fits a vision model to your images and to your device's training memory.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add_endless(name: str, run: Run, text: str, within: Any = None) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = (within or commands).add_parser(
            name, help=text, description=text
        )
        command.set_defaults(run=run)
        return command

    def add(name: str, run: Run, text: str, within: Any = None) -> argparse.ArgumentParser:
        command = add_endless(name, run, text, within)
        command.add_argument(
            "--json", action="store_true", help="print one JSON object as the last line"
        )
        return command

    serve = add_endless("serve", _serve, "serve the HTTP API and page, with a local worker")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on; 0 takes any free one (8000)")
    add_data_dir(serve)
    serve.add_argument("--no-worker", action="store_true", help="workers run elsewhere")

    worker = add_endless("worker", _worker, "work on queued jobs")
    add_data_dir(worker)
    worker.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)

    workers = add("workers", _workers, "the workers that are up; exit status 1 where none is")
    workers.add_argument("--here", action="store_true", help="only those of this machine")
    workers.add_argument(
        "--within", type=float, default=30.0, metavar="SECONDS", help="heard of since then (30)"
    )
    add_data_dir(workers)

    add_adapt(add)
    add_export(add)
    add_jobs(add)
    add_datasets(add, commands)

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

    add_pretrain(add)
    add_device(add)
    add("supernets", _supernets, "the supernets that jobs can start from")
    add("devices", _devices, "the devices that jobs can be fitted to by name")

    database = commands.add_parser("db", help="look after the database")
    database_commands = database.add_subparsers(required=True, metavar="COMMAND")
    add_data_dir(add("upgrade", _db_upgrade, "bring the database up to date", database_commands))
    add_keys(add, commands)
    return parser


def _add_plan(command: Any, otherwise: str) -> None:
    command.add_argument(
        "--plan",
        metavar="PLAN.json",
        help="a file or JSON; otherwise the plan in SPEC.json, or else " + otherwise,
    )


def _add_measure_arguments(measure: argparse.ArgumentParser) -> None:
    from tinytl.accounting.planner import REASONABLE_SLOWDOWN

    measure.add_argument("spec", type=Path, metavar="SPEC.json")
    plan = measure.add_mutually_exclusive_group()
    _add_plan(
        plan,
        "the leanest, with 16-bit trained weights too, whose estimated step is at most "
        f"{REASONABLE_SLOWDOWN:g} times the fastest's",
    )
    plan.add_argument(
        "--memory-limit",
        type=size,
        metavar="SIZE",
        help="with the fastest plan predicted to fit it, whatever plan is in SPEC.json",
    )
