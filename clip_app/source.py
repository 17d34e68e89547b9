"""Where a checkpoint comes from: the package, a folder or the Hub; and where what is made from it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clip_app import __version__
from clip_app.checkpoint import Format, check_folder, formats_in, list_files, variant_of
from clip_app.errors import CheckpointError
from clip_app.hub.cache import Snapshot, cached
from clip_app.hub.files import write_atomically
from clip_app.hub.prune import ORIGIN
from clip_app.hub.volume import cache_root, make_folder
from clip_app.settings import Settings

__all__ = [
    "Source",
    "artifacts_folder",
    "bundled_folder",
    "bundled_source",
    "examples_folder",
    "find_source",
    "folder_source",
    "local_folder",
    "present_source",
]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint's folder, what it is called, and the folder of the cache for what is made from it.

    ``reason`` says why it stands in for another; ``verified`` is False where it came over
    a connection whose certificate was not verified.
    """

    folder: Path
    name: str
    revision: str
    artifacts: Path
    bundled: bool = False
    snapshot: Snapshot | None = None
    verified: bool = True
    reason: str | None = None

    def offers(self, wanted: Format) -> bool:
        """Say whether the checkpoint is there in a format."""
        return wanted in formats_in(list_files(self.folder))


def local_folder(model: str) -> Path | None:
    """Return the folder that MODEL names, None where it is the id of a repository on the Hub."""
    folder = Path(model).expanduser()
    deep = model.partition(":")[0].count("/") > 1  # what follows a colon is a folder of the repository
    return folder if folder.is_dir() or model.startswith(("/", ".", "~")) or deep else None


def bundled_folder() -> Path:
    """The checkpoint inside the package."""
    return Path(__file__).parent / "bundled"


def examples_folder() -> Path:
    """The photographs inside the package."""
    return Path(__file__).parent / "examples"


def bundled_source(reason: str | None = None) -> Source:
    """The checkpoint inside the package; ``reason`` says why it serves instead of another."""
    folder = bundled_folder()
    return Source(
        folder=folder,
        name="bundled",
        revision=__version__,
        artifacts=artifacts_folder(folder),
        bundled=True,
        reason=reason,
    )


def folder_source(folder: Path) -> Source:
    """A checkpoint in a folder of the operator's.

    Raises:
        CheckpointError: the folder does not exist, or holds no checkpoint.
    """
    if not folder.is_dir():
        raise CheckpointError("CLIP_APP_MODEL names a folder that does not exist.")
    folder = folder.resolve()
    check_folder(folder)
    return Source(folder=folder, name=folder.name, revision="local", artifacts=artifacts_folder(folder))


def find_source(settings: Settings, progress: Callable[[int, int], None] = lambda done, total: None) -> Source:
    """Find the checkpoint that MODEL names, fetching it from the Hub where it must be.

    Raises:
        CheckpointError: the folder does not exist, or holds no checkpoint.
        HubError: the model is not in the cache and could not be put there.
    """
    if (source := present_source(settings)) is not None:
        if source.snapshot is None:
            _remember(source)
        return source
    # The Hub's client takes half a second, and a complete cache needs none of it.
    from clip_app.hub.fetch import fetch  # noqa: PLC0415

    fetched = fetch(settings, progress)
    return _hub_source(settings.model, fetched.snapshot, verified=fetched.verified)


def present_source(settings: Settings) -> Source | None:
    """Find the checkpoint where it is complete on this machine; makes no request.

    Raises:
        CheckpointError: the folder does not exist, or holds no checkpoint.
    """
    if settings.model == "bundled":
        return bundled_source()
    if (folder := local_folder(settings.model)) is not None:
        return folder_source(folder)
    snapshot = cached(settings.model, settings.revision, variant_of(settings.precision))
    return _hub_source(settings.model, snapshot) if snapshot is not None else None


def _hub_source(name: str, snapshot: Snapshot, *, verified: bool = True) -> Source:
    return Source(
        folder=snapshot.folder,
        name=name,
        revision=snapshot.revision,
        artifacts=snapshot.artifacts,
        snapshot=snapshot,
        verified=verified,
    )


def _remember(source: Source) -> None:
    """Write down which folder it was made of, by which prune knows whether it is still of use."""
    origin = source.artifacts / ORIGIN
    with suppress(OSError):
        if not origin.exists():
            make_folder(origin.parent)
            write_atomically(origin, f"{source.folder}\n".encode())


def artifacts_folder(folder: Path) -> Path:
    """The folder of the cache for a checkpoint that does not lie in it: another one once its files change."""
    digest = hashlib.sha256(str(folder).encode())
    for name in list_files(folder):
        info = (folder / name).stat()
        # Whole seconds: an image's layers keep no more of a file's time.
        digest.update(f"{name} {info.st_size} {int(info.st_mtime)}".encode())
    return cache_root() / "clip_app" / f"{folder.name}-{digest.hexdigest()[:16]}"
