"""The volume that the cache lies on: where it is, who else may use what is made there, and what its errors mean."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants

from clip_app.errors import HubError
from clip_app.hub.locks import LocksUnsupported, LockTimeout

__all__ = ["NO_FOLDER", "cache_root", "explain_file_error", "leads_to_no_folder", "make_folder", "openness", "share"]

NOWHERE = Path(os.devnull, "no-home")
NO_FOLDER = (
    "The cache is no folder: HF_HOME leads to a file or a broken link, or this user has no home. "
    "Set HF_HOME to a folder that can be written."
)


def cache_root() -> Path:
    """The folder of all repositories: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub.

    For a user without a home it is a place that cannot be: "~" would be a folder in the working directory.
    """
    root = Path(constants.HF_HUB_CACHE)
    return NOWHERE if root.parts[:1] == ("~",) else root


def openness(root: Path) -> int:
    """Return the mode to take for what is made below a cache's root: its own, and that of HF_HOME where it is there."""
    places = [root, *([root.parent] if root.parent == Path(constants.HF_HOME) else [])]
    mode = 0
    for place in places:
        with suppress(OSError):
            mode |= stat.S_IMODE(place.stat().st_mode)
    return mode


def make_folder(path: Path, root: Path | None = None) -> None:
    """Make a folder of the cache, those above it too, as open as the cache is, whatever the user's umask."""
    root = root or cache_root()
    wanted = openness(root)  # before it is there
    missing = [folder for folder in (path, *path.parents) if folder.is_relative_to(root) and not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        share(folder, wanted)


def share(path: Path, wanted: int) -> None:
    """Let others read a file or folder of this user's, and write it where the mode ``wanted`` lets them.

    The Hub client writes some files for their owner alone. Nobody but their group may write the files of models; the
    folder of its locks is not sticky, because each of them is opened as if it were to be made.
    """
    with suppress(OSError):
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode) or info.st_uid != os.geteuid():
            return
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode):
            shared = mode | 0o555 | wanted & 0o022
            shared |= stat.S_ISGID if wanted & stat.S_IWGRP else 0
            shared |= 0 if ".locks" in path.parts else wanted & stat.S_ISVTX
        else:
            shared = mode | 0o444 | wanted & (0o020 if path.parent.name == "blobs" else 0o022)
        if shared != mode:
            path.chmod(shared)


def explain_file_error(*errors: BaseException) -> HubError | None:
    """Say what to do about an error of the cache's volume; None where it is of another kind."""
    if (held := next((error for error in errors if isinstance(error, LockTimeout)), None)) is not None:
        return HubError("permissions", f"{held} still fills the cache. Wait for it, or end it, and start again.")
    if any(isinstance(error, LocksUnsupported) for error in errors):
        return HubError(
            "permissions",
            "This volume has no file locks. Mount it with locks, or let one job alone run clip-app prefetch and mount "
            "the cache read-only everywhere else.",
        )
    codes = {error.errno for error in errors if isinstance(error, OSError)}
    if codes & {errno.ENOSPC, errno.EDQUOT}:
        return HubError("disk_full", "The disk is full. Free space where HF_HOME points, or give it a larger volume.")
    if codes & {errno.ENOTDIR, errno.EEXIST, errno.ELOOP} and leads_to_no_folder(cache_root()):
        return HubError("permissions", NO_FOLDER)
    if codes & {errno.EACCES, errno.EPERM, errno.EROFS}:
        return HubError(
            "permissions", "The cache cannot be written. Make the folder of HF_HOME writable for this user."
        )
    return None


def leads_to_no_folder(path: Path) -> bool:
    """Say whether a file or a broken link is in the way of a folder that may not be there yet."""
    first = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    return not first.is_dir()
