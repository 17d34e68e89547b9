"""The folder that a server's uploads are in: its own, gone with it, and swept where it was killed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["remove_broken_uploads", "upload_folder"]

logger = logging.getLogger("clip_app")

PREFIX = "clip_app-uploads-"  # nothing else of the app is called so
STALE_SECONDS = 1800


@contextmanager
def upload_folder() -> Iterator[Path]:
    """Make the folder, and remove it at the end, and before that those of servers that were killed.

    A server holds a lock on its folder; the system lets go of it however the process ends.
    """
    _remove_orphans(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def remove_broken_uploads(folder: Path) -> None:
    """Remove old files that lie directly in the folder.

    Finished uploads lie in folders of their own, and of them alone Gradio keeps account.
    """
    for path in folder.iterdir():
        with suppress(OSError):
            if path.is_file() and abs(time.time() - path.stat().st_mtime) > STALE_SECONDS:
                path.unlink()


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if folder.is_symlink() or not folder.is_dir() or status.st_uid != os.geteuid():
                continue
            if (held := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)
                logger.info("the uploads of a server that was killed are removed")


def _lock(folder: Path) -> int | None:
    """Lock a folder; None where somebody else has it, or the volume has no locks."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file
