"""What pictures of a label are worth beside its words: 1, 4 and 16 of them; writes the table of docs/labels.md.

python benchmarks/examples.py FOLDER [--models bundled ...]

FOLDER has a folder of photographs for each label. So many of each are drawn at random, several times, and others asked
about: with the labels' names, and with names that say nothing ("kind 17"), where the pictures must carry it all.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clip_app.bank import LabelBank
from clip_app.engines import candidates
from clip_app.few_shot import mixed
from clip_app.images import decode
from clip_app.labels import LabelGroup
from clip_app.model import Model, load_model
from clip_app.settings import load_settings
from clip_app.source import examples_folder, find_source

PAGE = Path(__file__).parent.parent / "docs" / "labels.md"
SHOTS = (1, 4, 16)
DRAWS = 5
ASKED = 30  # photographs of each label, at most
BATCH = 16
ALPHA, BETA = 1.0, 5.5  # Tip-Adapter's own, for ImageNet

Rows = npt.NDArray[np.float32]


def main() -> None:
    """Measure every model and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["bundled"])
    given = parser.parse_args()
    lines = [
        "| model | names | pictures a label | words alone | pictures alone | Tip-Adapter | mixed |",
        "|---|" * 7 + "|",
    ]
    lines[1] = "|---" * 7 + "|"
    for name in given.models:
        source = find_source(load_settings(model=name))
        model = load_model(source, candidates(load_settings(model=name), source)[0])
        lines += measure(name, model, given.folder)
    table = "\n".join(lines)
    text = PAGE.read_text(encoding="utf-8")
    marked = f"<!-- examples -->\n{table}\n<!-- end of examples -->"
    PAGE.write_text(re.sub(r"<!-- examples -->.*<!-- end of examples -->", lambda _: marked, text, flags=re.S), "utf-8")


def measure(name: str, model: Model, folder: Path) -> Iterator[str]:
    """Yield a row of the table for each number of pictures, with both kinds of names."""
    labels = sorted(path.name for path in folder.iterdir() if path.is_dir())
    background = embed(model, sorted(examples_folder().glob("*.jpg")))
    pictures = [embed(model, sorted((folder / label).glob("*"))[: max(SHOTS) + ASKED]) for label in labels]
    for named in (True, False):
        names = [label.replace("_", " ") if named else f"kind {i}" for i, label in enumerate(labels)]
        texts, neutral = LabelBank(model).group(LabelGroup(name="asked", title="", labels=tuple(names)))
        for shots in SHOTS:
            draws = [draw(pictures, shots, np.random.default_rng(seed)) for seed in range(DRAWS)]
            cells = [
                summary([accuracy(method(texts, keys), asked) for keys, asked in draws])
                for method in (words, alone, tip_adapter(model.logit_scale), mixture(neutral, background))
            ]
            line = f"| {name} | {'their own' if named else 'that say nothing'} | {shots} | {' | '.join(cells)} |"
            print(line, flush=True)
            yield line


def embed(model: Model, paths: Sequence[Path]) -> Rows:
    """Return unit embeddings, shape [N, D]."""
    pixels = [model.preprocessing(decode(path.read_bytes(), max_bytes=10**8, max_pixels=10**8).image) for path in paths]
    batches = (np.stack(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH))
    return np.concatenate([model.encode_images(batch) for batch in batches])


def draw(pictures: Sequence[Rows], shots: int, random: np.random.Generator) -> tuple[list[Rows], list[Rows]]:
    """Draw so many pictures of each label; the others are asked about."""
    orders = [random.permutation(len(rows)) for rows in pictures]
    return (
        [rows[order[:shots]] for rows, order in zip(pictures, orders, strict=True)],
        [rows[order[shots:]][:ASKED] for rows, order in zip(pictures, orders, strict=True)],
    )


Scores = Callable[[Rows], Any]


def words(texts: Rows, keys: Sequence[Rows]) -> Scores:
    return lambda rows: rows @ texts.T


def alone(texts: Rows, keys: Sequence[Rows]) -> Scores:
    means = np.stack([rows.mean(0) / np.linalg.norm(rows.mean(0)) for rows in keys])
    return lambda rows: rows @ means.T


def mixture(neutral: Rows, background: Rows) -> Callable[[Rows, Sequence[Rows]], Scores]:
    """What the app does."""

    def method(texts: Rows, keys: Sequence[Rows]) -> Scores:
        both = mixed(texts, keys, neutral, background)
        return lambda rows: rows @ both.T

    return method


def tip_adapter(scale: float) -> Callable[[Rows, Sequence[Rows]], Scores]:
    """The training-free cache of Zhang et al. 2022 (Tip-Adapter), with its own two numbers."""

    def method(texts: Rows, keys: Sequence[Rows]) -> Scores:
        def scores(rows: Rows) -> Any:
            cached = [np.exp(-BETA * (1 - rows @ key.T)).sum(1) for key in keys]
            return scale * rows @ texts.T + ALPHA * np.stack(cached, 1)

        return scores

    return method


def accuracy(scores: Scores, asked: Sequence[Rows]) -> float:
    """Return the share of pictures whose best label is theirs."""
    right = [(scores(rows).argmax(1) == i).mean() for i, rows in enumerate(asked) if len(rows)]
    return float(np.mean(right))


def summary(values: Sequence[float]) -> str:
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values):.1f} %"


if __name__ == "__main__":
    main()
