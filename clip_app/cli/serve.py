"""``clip-app serve``."""

from __future__ import annotations

from clip_app import server
from clip_app.cli.flags import with_settings
from clip_app.log import configure_logging
from clip_app.settings import Settings

__all__ = ["serve"]


@with_settings
def serve(settings: Settings) -> None:
    """Serve the web page, the API and the metrics."""
    configure_logging(settings, settings.log_level)
    server.serve(settings)
