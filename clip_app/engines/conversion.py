"""A checkpoint to OpenVINO's format: made once, in a process of its own, and kept beside the snapshot.

The converting process, :mod:`clip_app.engines.convert`, imports torch and takes a few
gigabytes for some seconds; the serving process only ever maps the result. A marker
written last says complete.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from clip_app.checkpoint import Variant
from clip_app.engines.agreement import Agreement
from clip_app.errors import CheckpointError
from clip_app.hub.files import Pins, read_marker, write_marker, wrong_sizes
from clip_app.hub.volume import make_folder
from clip_app.tokenizer import Padding

if TYPE_CHECKING:
    from clip_app.source import Source

__all__ = ["ConversionStore", "Converted", "conversions", "describe_conversion"]

logger = logging.getLogger("clip_app")

FORMAT = 2
MARKER = "converted.json"
IMAGE, TEXT, TOKENIZER = "image.xml", "text.xml", "tokenizer.json"
# A checkpoint may hold 16-bit weights, which are converted to 32 bits.
LARGEST_GROWTH = 2
STALE_SECONDS = 3600
CONVERTER = "clip_app.engines.convert"
UNUSABLE = 3  # the converting process's exit code where its last line says what to do


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A complete conversion in a folder."""

    folder: Path
    variant: Variant
    logit_scale: float
    context: int
    vocabulary: int
    padding: Padding
    lower_case: bool
    agreement: Agreement | None
    files: Pins

    @classmethod
    def read(cls, folder: Path) -> Converted | None:
        """Return what the marker says; None if there is none, or not all files are there."""
        files, said = read_marker(folder / MARKER) or ({}, {})
        if said.pop("format", None) != FORMAT or wrong_sizes(folder, files):
            return None
        try:
            agreement = Agreement(**found) if (found := said.pop("agreement")) else None
            padding = Padding(**said.pop("padding"))
            return cls(folder=folder, files=files, agreement=agreement, padding=padding, **said)
        except (KeyError, TypeError):
            return None

    def write_marker(self) -> None:
        """Say that the folder is complete."""
        said = asdict(self) | {"format": FORMAT}
        del said["folder"], said["files"]
        write_marker(self.folder / MARKER, self.files, **said)


def describe_conversion(converted: Converted) -> str:
    """Say in a few words what a conversion is, and how well int8 agrees with float32."""
    size = sum(pin.size for pin in converted.files.values())
    words = f"{converted.variant}, {size / 1e6:.1f} MB"
    if converted.agreement is not None:
        words += f", {converted.agreement.told()}"
    return words


def conversions(source: Source) -> ConversionStore:
    """What was converted from a checkpoint."""
    return ConversionStore(source.artifacts / "openvino" / source.revision)


@dataclass(frozen=True)
class ConversionStore:
    """Conversions of one checkpoint, a folder each."""

    folder: Path

    def find(self, variant: Variant) -> Converted | None:
        """Return a complete conversion; writes nothing."""
        return Converted.read(self.folder / variant)

    def serves(self, variant: Variant) -> bool:
        """Say whether there is a complete conversion that is good enough to serve."""
        found = self.find(variant)
        return found is not None and (found.agreement is None or found.agreement.enough)

    def make(self, checkpoint: Path, variant: Variant, photographs: Path) -> Converted:
        """Convert a checkpoint in another process, int8 calibrated on a folder of photographs.

        Whoever comes second throws its own away. Callers that share a volume hold its lock.

        Raises:
            OSError: the folder cannot be written or is full.
            CheckpointError: the checkpoint cannot be converted.
        """
        if variant == "int8" and find_spec("nncf") is None:
            raise CheckpointError(
                "int8 is quantised with nncf, which is not installed. pip install 'clip-app[int8]' and run "
                "clip-app prefetch, or change CLIP_APP_PRECISION."
            )
        make_folder(self.folder)
        _check_space(self.folder, checkpoint)
        for left in self.folder.glob(f".{variant}.*"):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:  # its conversion was killed; others still run
                shutil.rmtree(left, ignore_errors=True)
        target = self.folder / f".{variant}.{uuid.uuid4().hex}"
        target.mkdir()
        try:
            _convert_elsewhere(checkpoint, target, variant, photographs)
            final = self.folder / variant
            if not self.serves(variant):
                shutil.rmtree(final, ignore_errors=True)
                with suppress(OSError):  # somebody else was faster after all
                    target.rename(final)
        finally:
            shutil.rmtree(target, ignore_errors=True)
        if (converted := self.find(variant)) is None:
            raise CheckpointError("The converted model is not complete. Run clip-app prefetch again.")
        return converted


def _check_space(folder: Path, checkpoint: Path) -> None:
    needed = LARGEST_GROWTH * sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _convert_elsewhere(checkpoint: Path, target: Path, variant: Variant, photographs: Path) -> None:
    command = [sys.executable, "-m", CONVERTER, str(checkpoint), str(target), variant, str(photographs)]
    # The child ends itself when this pipe closes, so that it never outlives a server that was stopped.
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None  # noqa: S101
        said = child.stderr.read()
    if child.returncode == UNUSABLE:
        raise CheckpointError(said.splitlines()[-1])
    if child.returncode != 0:
        logger.error("converting the model failed: %s", said[-2000:])
        raise CheckpointError("The checkpoint cannot be converted for OpenVINO. Set CLIP_APP_ENGINE=torch.")
