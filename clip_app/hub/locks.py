"""Advisory locks on the cache's volume: our own, and those of the Hub's client."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["NO_LOCKS", "LockTimeout", "LocksUnsupported", "has_writer", "hold", "is_young", "wait_for", "works"]

POLL_SECONDS = 0.2
# Where there are no locks to ask, nothing writes this long without touching its file.
STALE_SECONDS = 3600
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ENOSYS, errno.EINVAL)


class LocksUnsupported(OSError):
    """The volume has no file locks."""


class LockTimeout(TimeoutError):
    """Somebody else held the lock until the deadline; the message says who."""


@contextmanager
def hold(path: Path, deadline: float) -> Iterator[None]:
    """Hold a lock, its holder's name in the file; ``deadline`` is on time.monotonic's clock.

    Raises:
        LockTimeout: somebody else held it all the time.
        LocksUnsupported: the volume has no locks.
    """
    file = _open(path)
    try:
        _wait(file, path, deadline)
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(file)  # and with it goes the lock


def wait_for(path: Path, deadline: float) -> None:
    """Wait until nobody holds a lock; one that is not there, or may not be opened, is not waited for.

    Raises:
        LockTimeout: somebody held it until the deadline.
    """
    with suppress(FileNotFoundError, PermissionError):
        file = os.open(path, os.O_RDONLY)
        try:
            _wait(file, path, deadline)
        finally:
            os.close(file)


def works(path: Path) -> bool:
    """Ask for a lock that this process holds: on some network volumes everybody gets every lock."""
    try:
        return not _is_free(path, os.O_RDONLY)
    except OSError:
        return False


def has_writer(lock: Path, path: Path) -> bool:
    """Say whether somebody writes ``path`` under a lock; by its age where the lock cannot tell."""
    try:
        return not _is_free(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return is_young(path)


def is_young(path: Path) -> bool:
    """Say whether a file was written lately."""
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except OSError:
        return False


def _open(path: Path) -> int:
    """Open the file of a lock; another user's can be waited for, if not written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _is_free(path: Path, how: int) -> bool:
    file = os.open(path, how)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _wait(file: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
                raise LockTimeout(holder) from None
            time.sleep(POLL_SECONDS)
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise LocksUnsupported(error.errno, os.strerror(error.errno or 0)) from error
            raise
