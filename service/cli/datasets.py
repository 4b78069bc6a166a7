"""`tinyfit datasets`, over HTTP, and `tinyfit gc`, on the server's database and artifact store."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING, Any

from service.cli.command import (
    AddCommand,
    Answer,
    add_data_dir,
    connected,
    count,
    open_database,
    settings_of,
)

if TYPE_CHECKING:
    from service.views.schemas import DatasetView


def add_datasets(add: AddCommand, commands: Any) -> None:
    datasets = commands.add_parser("datasets", help="list and delete datasets of a server")
    within = datasets.add_subparsers(required=True, metavar="COMMAND")
    listing = add("list", _list, "the datasets of a server, newest first", within)
    listing.add_argument("--limit", type=count, default=20, help="how many (20)")
    delete = add("delete", _delete, "remove a dataset that no job is over", within)
    delete.add_argument("dataset", metavar="DATASET", help="its id")
    for command in (listing, delete):
        command.add_argument("--url", help="of the server (TINYFIT_URL, or http://127.0.0.1:8000)")

    gc = add("gc", _collect, "remove what nothing uses from the artifact store")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    gc.add_argument(
        "--grace",
        type=_seconds,
        metavar="SECONDS",
        help="leave what was stored or used since then alone (86400)",
    )
    add_data_dir(gc)


def _list(options: argparse.Namespace) -> Answer:
    with connected(options) as client:
        found = list(islice(client.datasets(), options.limit))
    lines = [_line(dataset) for dataset in found]
    return Answer(
        {"datasets": [dataset.model_dump(mode="json") for dataset in found]},
        "\n".join(lines) or "no datasets",
    )


def _line(dataset: DatasetView) -> str:
    from service.console import printable
    from tinytl.units import format_bytes

    return (
        f"{dataset.id}  {dataset.num_images:>7} images  {format_bytes(dataset.bytes):>9}  "
        f"{printable(dataset.name)}"
    )


def _delete(options: argparse.Namespace) -> Answer:
    with connected(options) as client:
        client.delete_dataset(options.dataset)
    answer = {"id": options.dataset, "deleted": True}
    return Answer(answer, f"dataset {options.dataset} is deleted")


def _collect(options: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from service.record.files.blobs import open_blobs
    from service.record.files.collecting import collect
    from tinytl.units import format_bytes

    settings = settings_of(options)
    grace_seconds = settings.artifact_grace_seconds if options.grace is None else options.grace
    with open_database(options) as database:
        blobs = open_blobs(settings, database)
        found = collect(blobs, grace_seconds=grace_seconds, dry_run=options.dry_run)
    freed = format_bytes(found.num_bytes + found.orphan_bytes)
    return Answer(
        {**asdict(found), "dry_run": options.dry_run, "grace_seconds": grace_seconds},
        f"{freed} {'would be' if options.dry_run else 'are'} freed: {found.num_blobs} blobs that "
        f"nothing uses, {found.num_orphans} objects of no blob",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, but got {text!r}")
    return seconds
