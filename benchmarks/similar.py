"""What cosines mean: near copies, pictures of one kind, and texts; writes the tables of docs/search.md.

python benchmarks/similar.py --photographs FOLDER [--kinds FOLDER]

The first FOLDER is a checkout of github.com/EliSchwartz/imagenet-sample-images: one photograph a class, its
name in the file's. The second has folders named after kinds, with photographs of each: ten of each are taken.
Every picture goes through the bundled model as it does in the app.
"""

from __future__ import annotations

import argparse
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from clip_app.images import decode
from clip_app.labels import query_group
from clip_app.loading import Loader
from clip_app.ranking import ALIKE, NEARLY_THE_SAME, Matrix, rank_by_text
from clip_app.serving import Serving
from clip_app.settings import load_settings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "search.md"
KINDS = ROOT / "bundled" / "questions" / "kinds.txt"
CUTS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
OF_A_KIND = 10
TOGETHER = 16  # pictures in one forward pass

Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Shot:
    """A photograph and what it shows."""

    path: Path
    name: str
    kind: str


def cropped(share: float) -> Change:
    """Cut a share of the width and the height off, evenly."""

    def change(image: Image.Image) -> Image.Image:
        across, down = (round(side * share / 2) for side in image.size)
        return image.crop((across, down, image.width - across, image.height - down))

    return change


# What is made of a photograph, and the quality of the JPEG that it is saved as.
COPIES: tuple[tuple[str, Change, int], ...] = (
    ("saved again, quality 50", Image.Image.copy, 50),
    ("half the size", lambda image: ImageOps.scale(image, 0.5), 85),
    ("5 % cropped", cropped(0.05), 85),
    ("10 % cropped", cropped(0.10), 85),
    ("a fifth brighter", lambda image: ImageEnhance.Brightness(image).enhance(1.2), 85),
    ("half the size, 10 % cropped, quality 60", lambda image: cropped(0.10)(ImageOps.scale(image, 0.5)), 60),
    ("mirrored", ImageOps.mirror, 85),
    ("20 % cropped", cropped(0.20), 85),
)


def main() -> None:
    """Embed everything, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--kinds", type=Path)
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    loader = Loader(load_settings(model="bundled", precision="float32", fallback="none"), preload=())
    loader.run()
    serving = loader.serving()
    shots = single_shots(given.photographs)
    originals = embed(serving, (shot.path.read_bytes() for shot in shots))
    pairs: list[tuple[str, ...]] = [("pairs of pictures", "pairs", "median", *(f"≥ {cut}" for cut in CUTS))]
    pairs += of_copies(serving, shots, originals)
    pairs += of_kinds("one photograph a class", shots, originals)
    texts: list[tuple[str, ...]] = [
        ("asked for", "texts", "right found", "right kept", "wrong kept", "kept that are right")
    ]
    texts.append(by_text(serving, "the class, one photograph of each", shots, originals, lambda shot: shot.name))
    if given.kinds is not None:
        small = shots_of_kinds(given.kinds)
        rows = embed(serving, (shot.path.read_bytes() for shot in small))
        pairs += of_kinds(f"{OF_A_KIND} photographs a kind", small, rows)
        name = f"the kind, {OF_A_KIND} photographs of each"
        texts.append(by_text(serving, name, small, rows, lambda shot: shot.kind))
    write("pairs", pairs)
    write("texts", texts)
    print(f"ALIKE {ALIKE}, NEARLY_THE_SAME {NEARLY_THE_SAME}")


def single_shots(folder: Path) -> list[Shot]:
    """One photograph a class of ImageNet; classes that kinds.txt puts together are one kind."""
    lines = [line for line in KINDS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    kind_of = {
        name: kind.strip() for kind, _, names in (line.rpartition(":") for line in lines) for name in names.split()
    }
    paths = sorted(folder.rglob("n*_*.JPEG"))
    names = [path.stem.partition("_")[2].replace("_", " ") for path in paths]
    return [Shot(path, name, kind_of.get(path.name[:9], name)) for path, name in zip(paths, names, strict=True)]


def shots_of_kinds(folder: Path) -> list[Shot]:
    """The first few photographs of every kind."""
    return [
        Shot(path, kind.name, kind.name)
        for kind in sorted(folder.iterdir())
        if kind.is_dir()
        for path in sorted(kind.iterdir())[:OF_A_KIND]
    ]


def embed(serving: Serving, pictures: Iterator[bytes]) -> Matrix:
    """Embed pictures as the app does; rows of unit length."""
    rows: list[Matrix] = []
    waiting: list[npt.NDArray[np.float32]] = []
    steps = serving.model.preprocessing
    for data in pictures:
        decoded = decode(data, max_bytes=10**9, max_pixels=10**8, target=steps.target)
        waiting.append(steps(decoded.image))
        if len(waiting) == TOGETHER:
            rows.append(serving.model.encode_images(np.stack(waiting)))
            waiting = []
    if waiting:
        rows.append(serving.model.encode_images(np.stack(waiting)))
    return np.concatenate(rows)


def of_copies(serving: Serving, shots: Sequence[Shot], originals: Matrix) -> Iterator[tuple[str, ...]]:
    """The cosines of every photograph and its copies."""
    for name, change, quality in COPIES:
        rows = embed(serving, (copied(shot.path, change, quality) for shot in shots))
        yield row(f"a photograph and its copy: {name}", (originals * rows).sum(axis=1))


def copied(path: Path, change: Change, quality: int) -> bytes:
    saved = io.BytesIO()
    change(Image.open(path).convert("RGB")).save(saved, "JPEG", quality=quality)
    return saved.getvalue()


def of_kinds(name: str, shots: Sequence[Shot], rows: Matrix) -> Iterator[tuple[str, ...]]:
    """The cosines of all pairs, by whether both show the same kind."""
    kinds = np.array([shot.kind for shot in shots])
    one, other = np.triu_indices(len(shots), 1)
    cosines = (rows @ rows.T)[one, other]
    same = kinds[one] == kinds[other]
    yield row(f"two of one kind ({name})", cosines[same])
    yield row(f"two of different kinds ({name})", cosines[~same])


def row(name: str, cosines: npt.NDArray[np.float32]) -> tuple[str, ...]:
    shares = [float((cosines >= cut).mean()) for cut in CUTS]
    written = (f"{share:.3%}" if 0 < share < 0.001 else f"{share:.1%}" for share in shares)
    found = (name, f"{len(cosines):,}", f"{np.median(cosines):.2f}", *written)
    print(" | ".join(found), flush=True)
    return found


def by_text(
    serving: Serving, name: str, shots: Sequence[Shot], rows: Matrix, shows: Callable[[Shot], str]
) -> tuple[str, ...]:
    """Ask for everything that is shown: is it found first, and what is on which side of the cut?"""
    shown = np.array([shows(shot) for shot in shots])
    texts = sorted(set(shown))
    first, kept_right, kept_wrong, precision = [], [], [], []
    for text in texts:
        (query,), neutral = serving.bank.group(query_group(text))
        ranking = rank_by_text(query, rows, neutral, serving.model.logit_scale)
        right = shown == text
        first.append(right[ranking.order[0]])
        kept_right.append(ranking.relevant[right].mean())
        kept_wrong.append(ranking.relevant[~right].mean())
        if ranking.relevant.any():
            precision.append(right[ranking.relevant].mean())
    shares = (f"{np.mean(values):.1%}" for values in (first, kept_right, kept_wrong, precision))
    found = (name, str(len(texts)), *shares)
    print(" | ".join(found), flush=True)
    return found


def write(name: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Put a table between its marks on the page."""
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    block = f"<!-- {name} -->\n{table}\n<!-- end of {name} -->"
    found = re.sub(rf"<!-- {name} -->.*<!-- end of {name} -->", lambda _: block, PAGE.read_text("utf-8"), flags=re.S)
    PAGE.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
