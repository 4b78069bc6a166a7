"""`tinyfit keys`: who may use a server. On the server's database, not over HTTP."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from service.cli.command import AddCommand, Answer, add_data_dir, count, open_database

if TYPE_CHECKING:
    from service.record.db.models import ApiKey


def add_keys(add: AddCommand, commands: Any) -> None:
    keys = commands.add_parser("keys", help="make, list and revoke keys of the HTTP API")
    within = keys.add_subparsers(required=True, metavar="COMMAND")
    create = add("create", _create, "make a key; from the first one on, requests need one", within)
    create.add_argument("name", metavar="NAME", help="whose or what for")
    create.add_argument(
        "--max-running",
        type=count,
        metavar="N",
        help="most of its jobs that run at the same time; more wait in the queue (no limit)",
    )
    revoke = add("revoke", _revoke, "make a key useless", within)
    revoke.add_argument("key", metavar="KEY", help="its id or name")
    for command in (create, revoke, add("list", _list, "all keys, without the secret", within)):
        add_data_dir(command)


def _create(options: argparse.Namespace) -> Answer:
    from service.record.keys import create_key

    with open_database(options) as database:
        key, text = create_key(database, options.name, max_running=options.max_running)
    return Answer(
        _as_json(key) | {"key": text},
        f"{text}\n\nThis is the only time that key {key.name!r} is shown. Whoever uses the server "
        f"sets\nTINYFIT_API_KEY to it, or sends it as `Authorization: Bearer KEY`.",
    )


def _list(options: argparse.Namespace) -> Answer:
    from service.record.keys import list_keys

    with open_database(options) as database:
        keys = list_keys(database)
    rows = [_as_json(key) for key in keys]
    lines = [
        f"{row['id']}  {row['created_at'][:10]}  {'revoked' if row['revoked_at'] else 'active':<8}"
        f"{_limit_text(row['max_running']):<16}{row['name']}"
        for row in rows
    ]
    return Answer(
        {"keys": rows},
        "\n".join(lines) or "no keys: a server that starts now needs none, on 127.0.0.1 only",
    )


def _revoke(options: argparse.Namespace) -> Answer:
    from service.record.keys import has_keys, revoke_key

    with open_database(options) as database:
        key = revoke_key(database, options.key)
        is_open = not has_keys(database)
    text = f"key {key.name!r} is revoked; a running server takes it for some seconds more"
    if is_open:
        text += "\nno active key is left: a server that starts now needs none, on 127.0.0.1 only"
    return Answer(_as_json(key), text)


def _limit_text(max_running: int | None) -> str:
    return "" if max_running is None else f"{max_running} at a time"


def _as_json(key: ApiKey) -> dict[str, Any]:
    from datetime import UTC, datetime

    def time(seconds: float | None) -> str | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()

    return {
        "id": key.id,
        "name": key.name,
        "max_running": key.max_running,
        "created_at": time(key.created_at),
        "revoked_at": time(key.revoked_at),
    }
