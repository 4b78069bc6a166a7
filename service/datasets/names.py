"""What a dataset is called: text that every database, log and request can hold."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_ARCHIVE = re.compile(r"(\.tar)?\.(zip|tar|tgz|gz|tbz2|bz2|parquet)$", re.IGNORECASE)


def name_of(source: Path) -> str:
    """What a folder or an archive is called."""
    return _ARCHIVE.sub("", source.name) if source.is_file() else source.resolve().name


def one_line(given: str) -> str:
    """The name on one line; U+FFFD stands for control characters, and for what was no text.

    The latter are lone surrogates: bytes of a file's name that are not UTF-8.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in ("Cc", "Cs")
        else character
        for character in " ".join(given.split())
    )
