"""Bytes for the decoder, guided by what they reach in its code: ``make fuzz FUZZ_SECONDS=60`` runs it.

It begins with a small picture of each format. What is neither decoded nor refused in a sentence ends it, and is kept in
the file that it names.
"""

from __future__ import annotations

import io
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["clip_app"]):
    from clip_app.errors import ClipAppError
    from clip_app.images import decode

from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def seeds(folder: Path) -> None:
    """Write a small picture of each format and of several modes."""
    for kind in FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "1"):
            file = io.BytesIO()
            try:
                Image.radial_gradient("L").resize((24, 16)).convert(mode).save(file, kind)
            except (OSError, KeyError, ValueError):  # which this format does not have
                continue
            (folder / f"{kind}-{mode}").write_bytes(file.getvalue())


def one(data: bytes) -> None:
    """Decode it, or be told why not."""
    try:
        decode(data, max_bytes=1_000_000, max_pixels=1_000_000, target=64)
    except ClipAppError as error:
        if error.status >= 500:
            raise


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as corpus:
        seeds(Path(corpus))
        limits = [
            f"-max_total_time={sys.argv[1]}",
            "-max_len=20000",
            "-rss_limit_mb=2000",
            "-timeout=20",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *limits, corpus], one)
        atheris.Fuzz()
