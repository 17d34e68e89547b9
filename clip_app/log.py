"""Logging to standard error, as text or JSON lines."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
import warnings
from datetime import datetime, timezone
from typing import Any

from clip_app.middleware.request_id import current_request
from clip_app.settings import Settings

__all__ = ["JsonFormatter", "TextFormatter", "configure_logging"]

PLAIN = re.compile(r"[\w.:/@+-]+")


class _Discreet(logging.Formatter):
    """Leaves out what an error says while a request is answered: it may quote what a client sent."""

    def formatException(self, ei: Any) -> str:
        error: BaseException | None = ei[1]
        if error is None or current_request() is None:
            return super().formatException(ei)
        parts: list[str] = []
        seen: set[int] = set()  # an error may be its own cause
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            parts.insert(0, "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n\nand then:\n\n".join(parts)


class JsonFormatter(_Discreet):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(_Discreet):
    """A line for people, with the fields behind it as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = (f"{name}={_value(value)}" for name, value in _fields(record).items())
        return " ".join((super().formatMessage(record).rstrip(), *fields))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says beside its message: the request it belongs to, and its own fields."""
    context = current_request()
    own: dict[str, Any] = getattr(record, "fields", {})
    return ({"request_id": context.id} if context else {}) | own


def _value(value: Any) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def configure_logging(settings: Settings, level: str) -> None:
    """Send this app's log to standard error; of the libraries' only what went wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    # The Hub client warns of a full disk with a server path, before it fails.
    warnings.filterwarnings("ignore", category=UserWarning, module="huggingface_hub")
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("clip_app").setLevel(level.upper())
