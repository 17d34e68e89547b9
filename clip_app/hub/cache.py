"""The shared model cache: layout, completion marker, locks, sweeping and permissions.

The cache is the Hub client's own; what this app adds lies in ``clip_app/`` inside
the repository's folder: a marker per revision, written last, and a lock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants

from clip_app.errors import HubError
from clip_app.hub.pins import Pin, Pins
from clip_app.models import DEFAULT_REVISIONS

if TYPE_CHECKING:
    from clip_app.checkpoint import Variant

__all__ = [
    "LockTimeout",
    "LocksUnsupported",
    "RepoCache",
    "Snapshot",
    "cache_root",
    "explain_file_error",
    "find_snapshot",
    "hash_file",
    "repo_cache",
    "write_atomically",
]

CHUNK = 1 << 20
POLL_SECONDS = 0.2
# Where there are no locks to ask, nothing writes this long without touching its file.
STALE_SECONDS = 3600
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.ENOSYS, errno.EINVAL)
NO_LOCKS_ADVICE = (
    "This volume has no file locks. Mount it with locks, or let one job alone run clip-app prefetch and mount the "
    "cache read-only everywhere else."
)
COMMIT = re.compile(r"[0-9a-f]{40}")


class LocksUnsupported(OSError):
    """The volume has no file locks."""


class LockTimeout(TimeoutError):
    """Somebody else held the lock until the deadline; the message says who."""


def cache_root() -> Path:
    """The folder of all repositories: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    return Path(constants.HF_HUB_CACHE)


def hash_file(path: Path) -> Pin:
    """Return the size and the SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Pin(size, digest.hexdigest())


def git_blob_hash(path: Path) -> str:
    """Return git's SHA-1 of a file, which is how the Hub's tree lists small files."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class RepoCache:
    """One repository's folder in the cache; ``part`` is the folder of the repository in which the checkpoint lies."""

    root: Path
    repo: str
    part: str = ""

    @property
    def folder(self) -> Path:
        """``models--org--name``."""
        return self.root / ("models--" + self.repo.replace("/", "--"))

    @property
    def artifacts(self) -> Path:
        """What this app adds."""
        return self.folder / "clip_app"

    @property
    def lock_file(self) -> Path:
        """The lock under which this app writes; it holds its holder's name."""
        return self.artifacts / "prefetch.lock"

    def snapshot(self, revision: str) -> Path:
        """The folder of a revision's files, links into the blobs."""
        return self.folder / "snapshots" / revision

    def view(self, revision: str) -> Path:
        """The folder of a revision's checkpoint: its files themselves, or links to those of a part and of the top."""
        return self.artifacts / self._part / revision if self.part else self.snapshot(revision)

    def marker(self, revision: str) -> Path:
        """The file that says a revision is complete."""
        return self.artifacts / self._part / f"{revision}.json"

    @property
    def _part(self) -> str:
        return self.part.replace("/", "--")

    def write_view(self, revision: str, names: Mapping[str, str]) -> None:
        """Link the files of a part, as they are seen from it, with their names in the repository."""
        view = self.view(revision)
        for seen, name in names.items() if self.part else ():
            link, target = view / seen, self.snapshot(revision) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent))

    def read_marker(self, revision: str, variant: Variant = "float") -> dict[str, Pin] | None:
        """Return the files of a revision that is complete for a variant; None where it is not or a file is gone."""
        files = self.listed(revision)
        if files is None or variant not in self.variants(revision) or self.wrong_sizes(revision, files):
            return None
        return files

    def listed(self, revision: str) -> dict[str, Pin] | None:
        """Return the files that the marker lists, whether they are there or not."""
        try:
            listed = json.loads(self.marker(revision).read_text(encoding="utf-8"))["files"]
            return {name: Pin(int(pin["size"]), str(pin["sha256"])) for name, pin in listed.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def variants(self, revision: str) -> list[Variant]:
        """Return the variants for which all was fetched that the repository has; safetensors serve every one."""
        try:
            found: list[Variant] = json.loads(self.marker(revision).read_text(encoding="utf-8"))["variants"]
        except (OSError, ValueError, KeyError, TypeError):
            return ["float", "int8"]
        return found

    def wrong_sizes(self, revision: str, files: Pins) -> list[str]:
        """Return the names of files that are missing or of another size."""
        wrong = []
        for name, pin in files.items():
            try:
                if (self.snapshot(revision) / name).stat().st_size != pin.size:
                    wrong.append(name)
            except OSError:
                wrong.append(name)
        return wrong

    def write_marker(self, revision: str, files: Pins, variant: Variant) -> dict[str, Pin]:
        """Say that a revision is complete, and return its files: written beside, flushed, then moved into place.

        Where one variant's ONNX files were there already, both are.
        """
        self.marker(revision).parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"repo": self.repo, "revision": revision}
        if any(name.endswith(".onnx") for name in files):
            before = self.listed(revision) or {}
            whole = bool(before) and not self.wrong_sizes(revision, before)
            files = {**(before if whole else {}), **files}
            content["variants"] = sorted({variant, *(self.variants(revision) if whole else [])})
        content["files"] = {name: asdict(pin) for name, pin in sorted(files.items())}
        write_atomically(self.marker(revision), (json.dumps(content, indent=2) + "\n").encode())
        return dict(files)

    def read_ref(self, name: str) -> str | None:
        """Return the commit that a branch was when it was fetched."""
        try:
            return (self.folder / "refs" / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None

    def write_ref(self, name: str, commit: str) -> None:
        """Remember which commit a branch was, so that a later start needs no request."""
        if name != commit:
            path = self.folder / "refs" / name
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, commit.encode())

    def remove_file(self, revision: str, name: str) -> None:
        """Remove a file and the blob it links to."""
        link = self.snapshot(revision) / name
        blob = link.resolve()
        with suppress(FileNotFoundError):
            link.unlink()
        if blob.is_relative_to(self.folder.resolve()):
            with suppress(FileNotFoundError):
                blob.unlink()

    def sweep(self) -> int:
        """Remove what killed downloads left, and return the bytes; never under a live writer.

        The Hub client holds a lock per blob while it writes; where locks are not to be
        had, age decides.
        """
        freed = 0
        locks_work = self._locks_work()
        for path in (self.folder / "blobs").glob("*.incomplete"):
            etag = path.name.split(".")[0]
            if _has_writer(self._blob_lock(etag), path) if locks_work else _is_young(path):
                continue
            with suppress(OSError):
                size = path.stat().st_size
                path.unlink()
                freed += size
        return freed

    def share(self) -> None:
        """Let others read what this user wrote, and write where the cache's root lets its group write.

        The Hub client writes some files for their owner alone.
        """
        group = self._group_writable()
        for path in (self.folder, *self.folder.rglob("*"), *(self.root / ".locks" / self.folder.name).rglob("*")):
            with suppress(OSError):
                _share_one(path, group=group)

    def _group_writable(self) -> bool:
        return bool(self.root.stat().st_mode & stat.S_IWGRP)

    def _locks_work(self) -> bool:
        """Ask for the lock that this process holds: on some network volumes everybody gets every lock."""
        try:
            file = os.open(self.lock_file, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        return False

    def wait_for_blobs(self, hashes: Iterable[str], deadline: float) -> None:
        """Wait until nothing else downloads these blobs; the Hub client itself waits without limit.

        Raises:
            LockTimeout: another program held one of its locks until the deadline.
        """
        for name in hashes:
            path = self._blob_lock(name)
            with suppress(FileNotFoundError, PermissionError):
                file = os.open(path, os.O_RDONLY)
                try:
                    _wait_for_lock(file, path, deadline)
                finally:
                    os.close(file)

    def _blob_lock(self, name: str) -> Path:
        """Where the Hub client locks a blob while it writes it."""
        return self.root / ".locks" / self.folder.name / f"{name}.lock"

    @contextmanager
    def lock(self, deadline: float) -> Iterator[None]:
        """Hold the one lock under which this app writes; ``deadline`` is on time.monotonic's clock.

        Raises:
            LockTimeout: somebody else held it all the time.
            LocksUnsupported: the volume has no locks.
        """
        self.artifacts.mkdir(parents=True, exist_ok=True)
        file = _open_lock(self.lock_file)
        try:
            for path in (self.folder, self.artifacts, self.lock_file):  # others want to wait for it meanwhile
                with suppress(OSError):
                    _share_one(path, group=self._group_writable())
            _wait_for_lock(file, self.lock_file, deadline)
            with suppress(OSError):
                os.ftruncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield
        finally:
            os.close(file)  # and with it goes the lock


@dataclass(frozen=True)
class Snapshot:
    """A complete revision in the cache."""

    cache: RepoCache
    revision: str
    files: Pins

    @property
    def folder(self) -> Path:
        """The folder of the checkpoint."""
        return self.cache.view(self.revision)

    @property
    def artifacts(self) -> Path:
        """Where what is made of it is kept."""
        return self.cache.marker(self.revision).parent

    def path(self, name: str) -> Path:
        """Where one of its files lies."""
        return self.cache.snapshot(self.revision) / name


def candidate_revisions(repo: str, revision: str | None) -> tuple[str, ...]:
    """Return the revisions that will do, in the order to try."""
    return (revision,) if revision else DEFAULT_REVISIONS.get(repo, ("main",))


def repo_cache(model: str) -> RepoCache:
    """Return the cache of a model's repository; after a colon the id may name the folder that the checkpoint is in."""
    repo, _, part = model.partition(":")
    return RepoCache(cache_root(), repo, part)


def find_snapshot(model: str, revision: str | None, variant: Variant = "float") -> Snapshot | None:
    """Return the snapshot if its marker says complete for a variant; makes no request and writes nothing."""
    cache = repo_cache(model)
    for candidate in candidate_revisions(cache.repo, revision):
        commit = candidate if COMMIT.fullmatch(candidate) else cache.read_ref(candidate)
        if commit and (files := cache.read_marker(commit, variant)) is not None:
            return Snapshot(cache, commit, files)
    return None


def explain_file_error(*errors: BaseException) -> HubError | None:
    """Say what to do about an error of the cache's volume; None where it is of another kind."""
    if (held := next((error for error in errors if isinstance(error, LockTimeout)), None)) is not None:
        return HubError("permissions", f"{held} still fills the cache. Wait for it, or end it, and start again.")
    if any(isinstance(error, LocksUnsupported) for error in errors):
        return HubError("permissions", NO_LOCKS_ADVICE)
    codes = {error.errno for error in errors if isinstance(error, OSError)}
    if codes & {errno.ENOSPC, errno.EDQUOT}:
        return HubError("disk_full", "The disk is full. Free space where HF_HOME points, or give it a larger volume.")
    if codes & {errno.ENOTDIR, errno.EEXIST, errno.ELOOP} and _leads_to_no_folder(cache_root()):
        return HubError("permissions", "The cache is no folder: HF_HOME leads to a file or a broken link. Set HF_HOME.")
    if codes & {errno.EACCES, errno.EPERM, errno.EROFS}:
        return HubError(
            "permissions", "The cache cannot be written. Make the folder of HF_HOME writable for this user."
        )
    return None


def _leads_to_no_folder(path: Path) -> bool:
    """Whether a file or a broken link is in the way of a folder that may not be there yet."""
    first = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    return not first.is_dir()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or nothing."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(PermissionError):  # some network volumes know no modes
            Path(name).chmod(0o664)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _open_lock(path: Path) -> int:
    """Open the lock file; another user's can be waited for, if not written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _wait_for_lock(file: int, path: Path, deadline: float) -> None:
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


def _has_writer(lock: Path, path: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDWR)
    except OSError:
        return _is_young(path) if lock.exists() else False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return _is_young(path)
    finally:
        os.close(file)
    return False


def _is_young(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < STALE_SECONDS
    except OSError:
        return False


def _share_one(path: Path, *, group: bool) -> None:
    if path.is_symlink():
        return
    info = path.stat()
    if info.st_uid != os.geteuid():
        return
    if stat.S_ISDIR(info.st_mode):
        wanted = info.st_mode | 0o555 | (stat.S_ISGID | 0o070 if group else 0)
    else:
        wanted = info.st_mode | 0o444 | (0o020 if group else 0)
    if wanted != info.st_mode:
        path.chmod(stat.S_IMODE(wanted))
