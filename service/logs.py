"""What the service's processes log, on standard error: lines of text, or a JSON object a line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Literal, get_args

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(name)s: %(message)s"
_FIELDS = ("levelname", "name", "message")
_RENAMED = {"levelname": "level", "name": "logger", "exc_info": "exception"}

_facts: ContextVar[dict[str, object] | None] = ContextVar("facts", default=None)


def set_up_logs(log_format: LogFormat) -> None:
    """From now on this process logs so, other libraries' messages and warnings included."""
    assert log_format in get_args(LogFormat)
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter(_FIELDS, timestamp="time", rename_fields=_RENAMED))
        handler.addFilter(_add_facts)
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
    else:
        handler.setFormatter(logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)


def are_json() -> bool:
    """Whether this process logs JSON."""
    handlers = logging.getLogger().handlers
    return any(isinstance(handler.formatter, JsonFormatter) for handler in handlers)


@contextmanager
def logged_with(**facts: object) -> Iterator[None]:
    """Lines of JSON that are logged within have these fields, too."""
    token = _facts.set({**(_facts.get() or {}), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def _add_facts(record: logging.LogRecord) -> bool:
    record.__dict__.update(_facts.get() or {})
    return True


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    logging.getLogger(__name__).critical("this process ends", exc_info=(kind, error, traceback))
