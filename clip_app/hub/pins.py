"""Pinned revisions: the size and SHA-256 of every file of a checkpoint that is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from clip_app.checkpoint import missing_files, within
from clip_app.errors import PinFileError
from clip_app.hub.cache import COMMIT, RepoCache
from clip_app.hub.files import Pin, Pins, decode_files, encode_files
from clip_app.models import DEFAULT_REVISIONS

__all__ = ["BUILT_IN", "PinBook", "read_pins", "write_pins"]

OPENAI_B32 = "openai/clip-vit-base-patch32"
OPENAI_L14 = "openai/clip-vit-large-patch14"
SIGLIP2_B16 = "google/siglip2-base-patch16-224"


_B32_FILES = {
    "config.json": Pin(4186, "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770"),
    "model.safetensors": Pin(605157884, "99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d"),
    "preprocessor_config.json": Pin(316, "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd"),
    "tokenizer.json": Pin(2224041, "b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842"),
    "tokenizer_config.json": Pin(592, "34b7336e4bee12e0a9730eaf5189f582ef3c3eea5027f65730e5717256755aad"),
    "vocab.json": Pin(862328, "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363"),
    "merges.txt": Pin(524657, "f526393189112391ce6f9795d4695f704121ce452c3aad1f5335cc41337eba85"),
    "special_tokens_map.json": Pin(389, "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf"),
}
_L14_FILES = {
    "config.json": Pin(4519, "8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a"),
    "model.safetensors": Pin(1710540580, "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"),
    "preprocessor_config.json": Pin(316, "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd"),
    "tokenizer.json": Pin(2224003, "a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4"),
    "tokenizer_config.json": Pin(905, "deef455e52fa5e8151e339add0582e4235f066009601360999d3a9cda83b1129"),
    "vocab.json": Pin(961143, "3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69"),
    "merges.txt": Pin(524619, "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"),
    "special_tokens_map.json": Pin(389, "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf"),
}
# As a public project pins it; what is beside the weights is taken as the Hub lists it at the commit.
_SIGLIP2_B16_FILES = {
    "model.safetensors": Pin(1500800904, "612923381c76ec5a9bed335d1c48827e3f2e506ac31b044b63b2031fadee6a0b"),
}
_FILES = {OPENAI_B32: _B32_FILES, OPENAI_L14: _L14_FILES, SIGLIP2_B16: _SIGLIP2_B16_FILES}
BUILT_IN: Mapping[tuple[str, str], Pins] = {
    (repo, revision): files for repo, files in _FILES.items() for revision in DEFAULT_REVISIONS[repo]
}


class PinBook:
    """What is trusted of a model beforehand: what the operator's file says, else the package."""

    def __init__(self, path: Path | None) -> None:
        """Read the operator's file, where there is one.

        Raises:
            PinFileError: it is missing or not of the form.
        """
        self._own = read_pins(path) if path else {}

    def of(self, cache: RepoCache, commit: str) -> Pins:
        """Return the pins of a revision, of all its files or of some; none where it is not known."""
        return self._own.get((cache.model, commit)) or BUILT_IN.get((cache.model, commit)) or {}

    def whole(self, cache: RepoCache, commit: str) -> Pins:
        """Return the pins where they are of a whole checkpoint: of some models only those of the weights are known."""
        pins = self.of(cache, commit)
        return {} if missing_files(within(pins, cache.part)) else pins

    def commit(self, cache: RepoCache, revision: str) -> str:
        """Return the commit that a branch was when its only pins were made; a commit is itself."""
        pinned = [commit for model, commit in self._own if model == cache.model]
        return revision if COMMIT.fullmatch(revision) or len(pinned) != 1 else pinned[0]


def read_pins(path: Path) -> dict[tuple[str, str], Pins]:
    """Read a file that :func:`write_pins` wrote, by repository and revision.

    Raises:
        PinFileError: it is missing or not of that form.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {(entry["repo"], entry["revision"]): decode_files(entry["files"]) for entry in entries}
    except OSError as error:
        raise PinFileError(f"CLIP_APP_PINS={path}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PinFileError(f"CLIP_APP_PINS={path}: make it with clip-app prefetch --write-pins FILE.") from None


def write_pins(path: Path, repo: str, revision: str, files: Pins) -> None:
    """Write the pins of one revision, keeping what the file says of others."""
    known = read_pins(path) if path.exists() else {}
    known[repo, revision] = files
    entries = [
        {"repo": repo, "revision": revision, "files": encode_files(files)}
        for (repo, revision), files in sorted(known.items())
    ]
    path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
