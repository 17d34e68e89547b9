"""What the cache holds of revisions and folders that are there no more: conversions, label embeddings, markers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from clip_app.checkpoint import Variant
from clip_app.hub.cache import COMMIT, RepoCache
from clip_app.hub.volume import cache_root

__all__ = ["ORIGIN", "prune"]

ORIGIN = "made-of.txt"  # in the home of what is made of a folder: the folder's path
LOCK_SECONDS = 30.0
VARIANTS: tuple[Variant, ...] = ("float", "int8")


def prune(home_of: Callable[[Path], Path]) -> dict[Path, int]:
    """Remove what no revision that is complete uses, and no folder as it is now; return the bytes of each.

    ``home_of`` says where what is made of a folder is kept. A home of which nobody knows the folder stays.

    Raises:
        LockTimeout: somebody else fills a repository's cache.
    """
    removed: dict[Path, int] = {}
    for folder in sorted(cache_root().glob("models--*")):
        cache = RepoCache(cache_root(), folder.name.removeprefix("models--").replace("--", "/", 1))
        if cache.artifacts.is_dir():
            with cache.lock(time.monotonic() + LOCK_SECONDS):
                removed |= {path: _remove(path) for path in list(_unused(cache))}
    for origin in sorted((cache_root() / "clip_app").glob(f"*/{ORIGIN}")):
        made_of = Path(origin.read_text(encoding="utf-8").strip())
        if not made_of.is_dir() or home_of(made_of) != origin.parent:
            removed[origin.parent] = _remove(origin.parent)
    return removed


def _unused(cache: RepoCache) -> Iterator[Path]:
    """Whatever is called after a commit that is not complete, of the checkpoint at the top and of those in folders."""
    for place in (cache.artifacts, *(path for path in cache.artifacts.iterdir() if path.is_dir())):
        if COMMIT.fullmatch(place.name) or place.name == "openvino":
            continue
        part = "" if place == cache.artifacts else place.name
        of = RepoCache(cache.root, cache.repo, part)
        for path in sorted([*place.iterdir(), *place.glob("openvino/*")]):
            commit = COMMIT.search(path.name)
            if commit and not any(of.read_marker(commit[0], variant) for variant in VARIANTS):
                yield path


def _remove(path: Path) -> int:
    files = [path] if path.is_file() or path.is_symlink() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.lstat().st_size for file in files)
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return size
