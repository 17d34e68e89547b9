"""Logging to standard error, as text or JSON lines."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import datetime, timezone

from clip_app.settings import Settings

__all__ = ["configure_logging"]


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(settings: Settings, level: str) -> None:
    """Send this app's log to standard error; of the libraries' only what went wrong."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else text)
    # The Hub client warns of a full disk with a server path, before it fails.
    warnings.filterwarnings("ignore", category=UserWarning, module="huggingface_hub")
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("clip_app").setLevel(level.upper())
