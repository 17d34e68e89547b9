"""Snapshots that other programs laid into the cache: taken where their bytes can be proven, without a request."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from huggingface_hub import errors, snapshot_download

from clip_app.checkpoint import missing_files, within
from clip_app.errors import HubError
from clip_app.hub.cache import RepoCache, Snapshot, candidate_revisions
from clip_app.hub.choice import Choice
from clip_app.hub.client import Listed
from clip_app.hub.files import Pin, Pins, changed, hash_file, wrong_sizes
from clip_app.hub.pins import PinBook

__all__ = ["Found", "adopt"]

logger = logging.getLogger("clip_app")

BLOB = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


@dataclass(frozen=True)
class Found:
    """What was found of a model: its snapshot, or else what it lacks, and which files cannot be proven."""

    snapshot: Snapshot | None = None
    missing: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


def adopt(cache: RepoCache, revision: str | None, pins: PinBook, choice: Choice) -> Found:
    """Take the latest snapshot that is whole and whose bytes are what pins, or else the names of its blobs, say.

    The Hub's client names a blob by the hash that the Hub lists: SHA-256 for large files, git's SHA-1 for others.

    Raises:
        HubError: a file has other bytes.
    """
    found = Found(missing=tuple(missing_files([])))
    for commit in _commits(cache, revision, pins):
        found = _look(cache, commit, pins, choice)
        if found.snapshot is not None:
            return found
    return found


def _commits(cache: RepoCache, revision: str | None, pins: PinBook) -> Iterator[str]:
    """The commits that will do and have a snapshot, the ones that were asked for first."""
    names = candidate_revisions(cache.repo, revision)
    asked = [cache.read_ref(name) or pins.commit(cache, name) for name in names]
    there = sorted(cache.snapshot("*").parent.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    others = [path.name for path in there] if names == ("main",) and revision is None else []
    yield from (commit for commit in dict.fromkeys(asked + others) if cache.snapshot(commit).is_dir())


def _look(cache: RepoCache, commit: str, pins: PinBook, choice: Choice) -> Found:
    """Look at one snapshot: whether all is there, and then whether it can be proven."""
    folder = cache.snapshot(commit)
    trusted = choice.of(pins.whole(cache, commit))
    listed, _ = cache.listed(commit)
    if missing := wrong_sizes(folder, trusted or listed):
        return Found(missing=tuple(missing))
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    try:
        there = choice.of({name: name for name in names})
    except HubError:  # none for the precision
        return Found(missing=(f"the {choice.variant} ONNX files",))
    if missing := missing_files(within(there, cache.part)) or _left_out(cache, commit, list(there)):
        return Found(missing=tuple(missing))
    if trusted:
        return Found(_taken(cache, commit, trusted, changed(folder, trusted), choice))
    expected = {name: _by_name(cache, commit, name) for name in there}
    if unproven := [name for name, hashes in expected.items() if hashes is None]:
        return Found(unproven=tuple(unproven))
    found = {name: hash_file(folder / name) for name in there}
    wrong = [
        name for name, hashes in expected.items() if hashes and not _same(hashes, cache, commit, name, found[name])
    ]
    return Found(_taken(cache, commit, found, wrong, choice))


def _same(hashes: Listed, cache: RepoCache, commit: str, name: str, found: Pin) -> bool:
    listed = Listed(found.size, hashes.sha256, hashes.git_sha1)
    return listed.matches(cache.snapshot(commit) / name, found)


def _by_name(cache: RepoCache, commit: str, name: str) -> Listed | None:
    """What a file must be by the name of its blob; None where it is a file of its own, or has another name."""
    blob = (cache.snapshot(commit) / name).resolve()
    if blob.parent != cache.blobs.resolve() or BLOB.fullmatch(blob.name) is None:
        return None
    return Listed(0, blob.name if len(blob.name) == 64 else None, blob.name)


def _left_out(cache: RepoCache, commit: str, names: list[str]) -> list[str]:
    """What the Hub's client knows to be missing: it keeps a listing, where this user may read it."""
    try:
        snapshot_download(
            cache.repo, revision=commit, cache_dir=cache.root, local_files_only=True, allow_patterns=names
        )
    except errors.IncompleteSnapshotError:
        return ["files of an interrupted download"]
    except errors.LocalEntryNotFoundError:
        return []
    return []


def _taken(cache: RepoCache, commit: str, files: Pins, wrong: list[str], choice: Choice) -> Snapshot:
    if wrong:
        raise HubError(
            "integrity",
            f"{', '.join(wrong)} of {cache.model} in the cache are not the bytes that they must be. Remove the "
            f"repository's folder from the cache, then run clip-app prefetch.",
        )
    with suppress(OSError):  # where it cannot be written, the next start looks at everything again
        choice.lay_out(cache, commit, files)
        cache.write_marker(commit, files, choice.variant)
    logger.warning("%s was laid into the cache by another program; its bytes were verified again", cache.model)
    return Snapshot(cache, commit, files)
