"""What decoding takes, of memory and of a core, beside Pillow alone; writes the table of docs/decoding.md.

Each picture is decoded in a process of its own: by the app, made smaller while it is read, and by
Pillow as most programs do it (open, draft, convert, resize). A growth is that of the process's peak.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pillow_heif import register_heif_opener

PAGE = Path(__file__).parent.parent / "docs" / "decoding.md"
EXAMPLES = Path(__file__).parent.parent / "clip_app" / "examples"
TARGET = 224
ROUNDS = 5
PROGRAM = f"""
import json, sys, time
from pathlib import Path
from PIL import Image
from clip_app.errors import ClipAppError
from clip_app.images import decode
from pillow_heif import register_heif_opener
register_heif_opener()

def ours(data):
    decode(data, max_bytes=10**9, max_pixels=10**8, target={TARGET}).image.resize(({TARGET}, {TARGET}), reducing_gap=2)

def pillow(data):
    import io
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (3 * {TARGET}, 3 * {TARGET}))
        image.convert("RGB").resize(({TARGET}, {TARGET}), reducing_gap=2)

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM")) / 1024

data = Path(sys.argv[2]).read_bytes()
side = ours if sys.argv[1] == "ours" else pillow
before, seconds, refused = peak(), [], None
for _ in range(int(sys.argv[3])):
    started = time.process_time()
    try:
        side(data)
    except ClipAppError as error:
        refused = error.message
    seconds.append(time.process_time() - started)
print(json.dumps([peak() - before, min(seconds), refused]))
"""


def photograph(width: int, height: int) -> Image.Image:
    """An example photograph, enlarged: a camera's noise would not fit into what may be uploaded."""
    path = min(path for path in EXAMPLES.iterdir() if path.suffix in (".jpg", ".png", ".webp"))
    return Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def transparent(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 16)


# The name, the size, what is made of the photograph, and how it is saved.
PICTURES: tuple[tuple[str, tuple[int, int], Callable[[Image.Image], Image.Image], str, dict[str, object]], ...] = (
    ("JPEG of a camera", (4032, 3024), Image.Image.copy, "JPEG", {"quality": 90}),
    ("JPEG of a phone", (16_320, 12_240), Image.Image.copy, "JPEG", {"quality": 60}),
    ("progressive JPEG", (12_000, 9000), Image.Image.copy, "JPEG", {"quality": 60, "progressive": True}),
    ("JPEG of a panorama", (12_000, 800), Image.Image.copy, "JPEG", {"quality": 80}),
    ("PNG", (10_000, 9900), Image.Image.copy, "PNG", {"compress_level": 1}),
    ("PNG, transparent", (10_000, 9900), transparent, "PNG", {"compress_level": 1}),
    ("PNG, 16 bits of grey", (10_000, 9900), deep, "PNG", {"compress_level": 1}),
    ("PNG, one pixel wide", (100, 100), lambda image: Image.new("L", (1, 99_000_000)), "PNG", {}),
    ("TIFF", (10_000, 9900), Image.Image.copy, "TIFF", {"compression": "tiff_deflate"}),
    ("WebP", (10_000, 6000), Image.Image.copy, "WEBP", {"quality": 60, "method": 0}),
    ("WebP, lossless", (10_000, 6000), Image.Image.copy, "WEBP", {"lossless": True, "quality": 0, "method": 0}),
    ("GIF", (10_000, 6000), lambda image: image.quantize(32), "GIF", {}),
    ("AVIF", (7000, 5250), Image.Image.copy, "AVIF", {"speed": 10}),
    ("HEIC of a phone", (8064, 6048), Image.Image.copy, "HEIF", {"quality": 40}),
)


def main() -> None:
    """Measure every picture by both sides, and write the table."""
    register_heif_opener()
    Image.MAX_IMAGE_PIXELS = None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, size, change, format, options in PICTURES:
            path = Path(folder) / f"picture.{format.lower()}"
            picture = change(photograph(*size))
            picture.save(path, format, **options)
            row = table_row(name, picture.size, path)
            print(row, flush=True)
            rows.append(row)
    table = "\n".join(
        ("| picture | | megabytes | clip_app | | Pillow alone | |", "|---|---|---|---|---|---|---|", *rows)
    )
    block = f"<!-- table -->\n{table}\n<!-- end of table -->"
    page = re.sub(r"<!-- table -->.*<!-- end of table -->", lambda _: block, PAGE.read_text("utf-8"), flags=re.S)
    PAGE.write_text(page, encoding="utf-8")


def table_row(name: str, size: tuple[int, int], path: Path) -> str:
    rounds = ROUNDS if size[0] * size[1] < 15_000_000 else 1
    ours, pillow = (measured(side, path, rounds) for side in ("ours", "pillow"))
    cells = (name, f"{size[0]} x {size[1]}", f"{path.stat().st_size / 1e6:.1f}", *ours, *pillow)
    return f"| {' | '.join(cells)} |"


def measured(side: str, path: Path, rounds: int) -> tuple[str, str]:
    command = (sys.executable, "-W", "ignore", "-c", PROGRAM, side, str(path), str(rounds))
    found = subprocess.run(command, check=True, capture_output=True, timeout=600)
    growth, seconds, refused = json.loads(found.stdout)
    if refused:
        return "refused", refused.partition("(")[0] + "..."
    return f"{growth:.0f} MB", f"{seconds:.2f} s" if seconds > 0.1 else f"{1000 * seconds:.1f} ms"


if __name__ == "__main__":
    main()
