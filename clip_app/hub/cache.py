"""The shared model cache: its layout, and which revisions are complete; nothing here makes a request.

The cache is the Hub client's own; what this app adds lies in ``clip_app/`` inside
the repository's folder: a marker per revision, written last, and a lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clip_app.hub.files import Pin, Pins, read_marker, write_atomically, write_marker, wrong_sizes
from clip_app.hub.locks import has_writer, hold, is_young, wait_for, works
from clip_app.hub.volume import cache_root, make_folder, openness, share
from clip_app.models import DEFAULT_REVISIONS

if TYPE_CHECKING:
    from clip_app.checkpoint import Variant

__all__ = ["COMMIT", "RepoCache", "Snapshot", "cached", "candidate_revisions", "repo_cache"]

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RepoCache:
    """One repository's folder in the cache; ``part`` is the folder of the repository in which the checkpoint lies."""

    root: Path
    repo: str
    part: str = ""

    @property
    def model(self) -> str:
        """The id that it is asked for by, and that pins are kept under."""
        return f"{self.repo}:{self.part}" if self.part else self.repo

    @property
    def folder(self) -> Path:
        """``models--org--name``."""
        return self.root / ("models--" + self.repo.replace("/", "--"))

    @property
    def blobs(self) -> Path:
        """The files of all revisions, named by the hashes that the Hub lists."""
        return self.folder / "blobs"

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

    def _blob_lock(self, name: str) -> Path:
        """Where the Hub client locks a blob while it writes it."""
        return self.root / ".locks" / self.folder.name / f"{name}.lock"

    def read_marker(self, revision: str, variant: Variant = "float") -> dict[str, Pin] | None:
        """Return the files of a revision that is complete for a variant; None where it is not or a file is gone."""
        files, variants = self.listed(revision)
        there = bool(files) and variant in variants and not wrong_sizes(self.snapshot(revision), files)
        return files if there else None

    def listed(self, revision: str) -> tuple[dict[str, Pin], list[Variant]]:
        """Return the files that the marker lists, there or not, and the variants for which they are all.

        Safetensors serve every variant.
        """
        files, said = read_marker(self.marker(revision)) or ({}, {})
        return files, said.get("variants", ["float", "int8"])

    def marked(self) -> list[str]:
        """Return the revisions that have a marker, the latest first; none where this user may not look."""
        try:
            markers = [path for path in self.marker("*").parent.glob("*.json") if COMMIT.fullmatch(path.stem)]
            return [path.stem for path in sorted(markers, key=lambda path: path.stat().st_mtime, reverse=True)]
        except OSError:
            return []

    def write_marker(self, revision: str, files: Pins, variant: Variant) -> dict[str, Pin]:
        """Say that a revision is complete, and return its files.

        Where one variant's ONNX files were there already, both are.
        """
        said: dict[str, object] = {"repo": self.repo, "revision": revision}
        if any(name.endswith(".onnx") for name in files):
            before, variants = self.listed(revision)
            whole = bool(before) and not wrong_sizes(self.snapshot(revision), before)
            files = {**(before if whole else {}), **files}
            said["variants"] = sorted({variant, *(variants if whole else [])})
        make_folder(self.marker(revision).parent, self.root)
        write_marker(self.marker(revision), files, **said)
        share(self.marker(revision), openness(self.root))
        return dict(files)

    def write_view(self, revision: str, names: Mapping[str, str]) -> None:
        """Link the files of a part, as they are seen from it, with their names in the repository."""
        view = self.view(revision)
        for seen, name in names.items() if self.part else ():
            link, target = view / seen, self.snapshot(revision) / name
            make_folder(link.parent, self.root)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent))

    def read_ref(self, name: str) -> str | None:
        """Return the commit that a branch was when it was fetched; a commit is itself."""
        if COMMIT.fullmatch(name):
            return name
        try:
            return (self.folder / "refs" / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None

    def write_ref(self, name: str, commit: str) -> None:
        """Remember which commit a branch was, so that a later start needs no request.

        A commit becomes what ``main`` is where nobody knows that: other programs look there.
        """
        if COMMIT.fullmatch(name) and self.read_ref("main") is None:
            name = "main"
        if name != commit:
            path = self.folder / "refs" / name
            with suppress(OSError):
                make_folder(path.parent, self.root)
                write_atomically(path, commit.encode())
                share(path, openness(self.root))

    def remove_file(self, revision: str, name: str) -> None:
        """Remove a file and the blob it links to."""
        link = self.snapshot(revision) / name
        blob = link.resolve()
        link.unlink(missing_ok=True)
        if blob.is_relative_to(self.folder.resolve()):
            blob.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what killed downloads left, and return the bytes; never under a live writer.

        The Hub client holds a lock per blob while it writes; where locks are not to be
        had, age decides.
        """
        freed = 0
        locks_work = works(self.lock_file)
        for path in self.blobs.glob("*.incomplete"):
            lock = self._blob_lock(path.name.split(".")[0])
            if has_writer(lock, path) if locks_work else is_young(path):
                continue
            with suppress(OSError):
                size = path.stat().st_size
                path.unlink()
                freed += size
        return freed

    def prepare(self, revision: str, hashes: Iterable[str], deadline: float) -> None:
        """Wait until nothing else downloads these blobs, and make what the Hub client will need, for others too.

        The client itself waits without limit, and makes for its user alone what a umask says.

        Raises:
            LockTimeout: another program held one of its locks until the deadline.
        """
        locks, wanted = [self._blob_lock(name) for name in hashes], openness(self.root)
        for lock in locks:
            wait_for(lock, deadline)
            make_folder(lock.parent, self.root)
            with suppress(OSError):
                lock.touch(exist_ok=True)
            share(lock, wanted)
        for folder in (self.blobs, self.snapshot(revision), self.folder / "refs", self.folder / "trees"):
            make_folder(folder, self.root)

    def share(self) -> None:
        """Let others read what this user wrote, and write where the cache's root lets them."""
        wanted, locks = openness(self.root), self.root / ".locks" / self.folder.name
        for path in (self.root, locks.parent, locks, *locks.rglob("*"), self.folder, *self.folder.rglob("*")):
            share(path, wanted)

    @contextmanager
    def lock(self, deadline: float) -> Iterator[None]:
        """Hold the one lock under which this app writes; ``deadline`` is on time.monotonic's clock.

        Raises:
            LockTimeout: somebody else held it all the time.
            LocksUnsupported: the volume has no locks.
        """
        make_folder(self.artifacts, self.root)
        with suppress(OSError):
            self.lock_file.touch(exist_ok=True)
        for path in (self.folder, self.artifacts, self.lock_file):  # others want to wait for it meanwhile
            share(path, openness(self.root))
        with hold(self.lock_file, deadline):
            yield


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

    @property
    def raw(self) -> Path:
        """The folder that the names of its files are in."""
        return self.cache.snapshot(self.revision)


def candidate_revisions(repo: str, revision: str | None) -> tuple[str, ...]:
    """Return the revisions that will do, in the order to try."""
    return (revision,) if revision else DEFAULT_REVISIONS.get(repo, ("main",))


def repo_cache(model: str) -> RepoCache:
    """Return the cache of a model's repository; after a colon the id may name the folder that the checkpoint is in."""
    repo, _, part = model.partition(":")
    return RepoCache(cache_root(), repo, part)


def cached(model: str, revision: str | None, variant: Variant = "float") -> Snapshot | None:
    """Return the snapshot whose marker says complete for a variant; makes no request and writes nothing.

    Where no revision is asked for and another program has moved the branch, it is the latest that is complete.
    """
    cache = repo_cache(model)
    candidates = candidate_revisions(cache.repo, revision)
    commits = [commit for name in candidates if (commit := cache.read_ref(name))]
    if revision is None and not all(map(COMMIT.fullmatch, candidates)):
        commits += cache.marked()
    for commit in commits:
        if (files := cache.read_marker(commit, variant)) is not None:
            return Snapshot(cache, commit, files)
    return None
