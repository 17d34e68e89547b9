"""A checkpoint made ready for the first engine that can serve it.

``python -m clip_app.preparation`` fetches and converts the model of the environment, and is what an image that
carries its model is built with. It imports as little of the app as it can: when a file changes that is not
imported here, the model in the image stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from clip_app.engines import ENGINES, candidates
from clip_app.errors import CheckpointError, ClipAppError
from clip_app.settings import Settings, load_settings
from clip_app.source import find_source, local_folder

__all__ = ["main", "of_the_hub", "prepare"]


def of_the_hub(settings: Settings) -> bool:
    """Say whether MODEL is a repository on the Hub, not a folder or the model in the package."""
    return settings.model != "bundled" and local_folder(settings.model) is None


def prepare(settings: Settings, photographs: Path | None, warn: Callable[[str], None]) -> str | None:
    """Make what the first engine that can serves from, and say what was made, None where nothing need be.

    Where no engine is asked for by name, the next may do, and ``warn`` is told why.

    Raises:
        CheckpointError: no engine that is installed can serve it.
        HubError: the model is not in the cache and could not be put there.
    """
    source, failures = find_source(settings), []
    for choice in candidates(settings, source):
        if not ENGINES[choice.engine].converts:
            return None
        try:
            return ENGINES[choice.engine].load().prepare(source, choice.precision, photographs)
        except CheckpointError as error:
            failures.append(error)
            if settings.engine != "auto" or choice.precision == "int8":
                raise
            warn(f"{choice} will not serve. {error}")
    raise failures[-1]


def main() -> None:
    """Fetch and convert the model that the environment names, if it is one of the Hub."""
    try:
        settings = load_settings()
        if not of_the_hub(settings):
            return
        made = prepare(settings, None, lambda said: print(f"warning: {said}", file=sys.stderr))
    except ClipAppError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{settings.model}: {made or 'nothing to convert'}")


if __name__ == "__main__":
    main()
