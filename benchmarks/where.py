"""How well maps say where a label is, on composed photographs; writes the table of docs/where.md.

python benchmarks/where.py --photographs FOLDER [--clip CHECKPOINT]

FOLDER is a checkout of github.com/EliSchwartz/imagenet-sample-images: one photograph a class, its
name in the file's. CHECKPOINT is a CLIP in transformers' format, asked about the kinds of
bundled/questions/kinds.txt. One object on plain ground would prove nothing: attention without any
label finds that, too. So the questions are

- side by side: two photographs. Is the map of the one's label highest in the half that shows it,
  and does the other label move it into the other half?
- pasted: a photograph at a random place over another. Is the map highest inside it?
"""

from __future__ import annotations

import argparse
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from clip_app.contrast import Contrast, Direction
from clip_app.heatmaps import METHODS, Mapper, class_maps, open_mapper
from clip_app.heatmaps.attention_relevance import AttentionRelevance
from clip_app.heatmaps.crops import Crops
from clip_app.heatmaps.grid import Heat
from clip_app.heatmaps.vision_tower import open_tower
from clip_app.loading import Loader
from clip_app.options import ExplainOptions
from clip_app.serving import Serving
from clip_app.settings import load_settings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "where.md"
KINDS = ROOT / "bundled" / "questions" / "kinds.txt"
SIDE, LONGEST, PASTED = 400, 800, 0.4
HEAD = (
    "model",
    "method",
    "told apart from",
    "in the right half",
    "moves with the label",
    "pasted",
    "chance",
    "one map",
)
GOALS = ("", "wanted of the bundled model", "", "≥ 95 %", "≥ 92 %", "≥ 80 %", "", "")

Box = tuple[float, float, float, float]
Shot = tuple[Path, str]  # a photograph, and what it shows
Rivals = Callable[[str], dict[str, object]]

TOLD: tuple[tuple[str, Rivals], ...] = (
    ("the other's label", lambda other: {"labels": [other]}),
    ("by default", lambda other: {}),
)


@dataclass(frozen=True)
class Subject:
    """A checkpoint that serves, the photographs whose labels it is asked about, and how the table calls it."""

    name: str
    serving: Serving
    shots: Sequence[Shot]

    @classmethod
    def of(cls, name: str, model: str, engine: str, shots: Sequence[Shot]) -> Subject:
        loader = Loader(load_settings(model=model, engine=engine, precision="float32", fallback="none"), preload=())
        loader.run()
        return cls(name, loader.serving(), shots)

    def direction(self, label: str, **options: object) -> Direction:
        asked = ExplainOptions.of(label=label, **options)
        return Contrast.of(asked, self.serving.groups, self.serving.default_groups).direction(self.serving.bank)


class AttentionAlone:
    """What a network looks at whatever is asked: the class token's attention in the last layer, or through all.

    The latter is attention rollout (Abnar and Zuidema 2020).
    """

    def __init__(self, relevance: AttentionRelevance, *, rollout: bool) -> None:
        self._relevance, self._rollout = relevance, rollout

    @torch.no_grad()
    def look(self, image: Image.Image) -> Callable[[Direction], Heat]:
        tower = self._relevance._tower  # noqa: SLF001  # the same pixels and network
        with tower.turn(tower.pixels(image)) as (batch, shape):
            attentions = tower.network(batch, interpolate_pos_encoding=True, output_attentions=True).attentions
        total = torch.eye(attentions[0].shape[-1])
        for layer in attentions:
            total = total + layer[0].mean(0) @ total
        row = total[0, 1:] if self._rollout else attentions[-1][0].mean(0)[0, 1:]
        heat: Heat = row.reshape(shape).numpy()
        return lambda direction: heat


def main() -> None:
    """Ask everything, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    rows = [HEAD, ("---",) * len(HEAD), GOALS]
    for row in _rows(given.photographs, given.clip, given.questions):
        print(" | ".join(row), flush=True)
        rows.append(row)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    block = f"<!-- table -->\n{table}\n<!-- end of table -->"
    page = re.sub(r"<!-- table -->.*<!-- end of table -->", lambda _: block, PAGE.read_text("utf-8"), flags=re.S)
    PAGE.write_text(page, encoding="utf-8")


def _rows(photographs: Path, clip: Path | None, count: int) -> Iterator[tuple[str, ...]]:
    named = [(path, path.stem.partition("_")[2].replace("_", " ")) for path in sorted(photographs.rglob("n*_*.JPEG"))]
    for engine in ("openvino", "onnxruntime"):
        yield from _of_bundled(Subject.of(f"bundled, {engine}", "bundled", engine, named), count)
    if clip is not None:
        yield from _of_clip(Subject.of("CLIP of 64 pixels", str(clip), "torch", _kinds(photographs)), count)


def _of_bundled(subject: Subject, count: int) -> Iterator[tuple[str, ...]]:
    serving = subject.serving
    yield from (_measure(subject, *open_mapper(serving), *told, count) for told in TOLD)
    if serving.model.info.engine != "openvino":
        return
    for larger in (0.75, 1.0):
        mapper = class_maps.open_mapper(serving, larger=larger)
        yield _measure(subject, f"… pictures {larger:g} times as large as in training", mapper, *TOLD[0], count)
    yield from (_measure(subject, METHODS[-1].name, Crops(serving.model), *told, count) for told in TOLD)


def _of_clip(subject: Subject, count: int) -> Iterator[tuple[str, ...]]:
    serving = subject.serving
    tower = open_tower(serving.source, "cpu", serving.model.preprocessing, "eager")
    relevance = AttentionRelevance(tower)
    for name, rollout in (("attention of the last layer, no label", False), ("attention rollout, no label", True)):
        yield _measure(subject, name, AttentionAlone(relevance, rollout=rollout), "nothing", TOLD[0][1], count)
    yield from (_measure(subject, METHODS[1].name, relevance, *told, count) for told in TOLD)
    for area in (1, 3):
        mapper = AttentionRelevance(tower, area=area)
        yield _measure(subject, f"… in the area of {area} of its squares", mapper, *TOLD[0], count)
    yield from (_measure(subject, METHODS[-1].name, Crops(serving.model), *told, count) for told in TOLD)


def _measure(subject: Subject, name: str, mapper: Mapper, told: str, rivals: Rivals, count: int) -> tuple[str, ...]:
    right = moved = inside = 0
    room, seconds = 0.0, []
    for picture, left, other in _beside(subject.shots, count):
        ask = mapper.look(picture)
        places = [
            _peak(ask(subject.direction(label, **rivals(against))))[0] < 0.5
            for label, against in ((left, other), (other, left))
        ]
        right += places[0]
        moved += places[0] != places[1]
    for picture, label, under, (x0, y0, x1, y1) in _pasted(subject.shots, count):
        direction = subject.direction(label, **rivals(under))
        start = time.perf_counter()
        x, y = _peak(mapper.look(picture)(direction))
        seconds.append(time.perf_counter() - start)
        inside += x0 <= x <= x1 and y0 <= y <= y1
        room += (x1 - x0) * (y1 - y0)
    shares = (f"{value / count:.1%}" for value in (right, moved, inside, room))
    return (subject.name, name, told, *shares, f"{1000 * np.median(seconds):.0f} ms")


def _beside(shots: Sequence[Shot], count: int) -> Iterator[tuple[Image.Image, str, str]]:
    """Two photographs side by side, and what each shows."""
    for left, right in _choose(shots, count, seed=0):
        picture = Image.new("RGB", (2 * SIDE, SIDE))
        picture.paste(_square(left[0], SIDE), (0, 0))
        picture.paste(_square(right[0], SIDE), (SIDE, 0))
        yield picture, left[1], right[1]


def _pasted(shots: Sequence[Shot], count: int) -> Iterator[tuple[Image.Image, str, str, Box]]:
    """One over another at a random place, what each shows, and the place: left, top, right, bottom from 0 to 1."""
    random = np.random.default_rng(1)
    for above, below in _choose(shots, count, seed=2):
        picture = Image.open(below[0]).convert("RGB")
        picture.thumbnail((LONGEST, LONGEST))
        width, height = picture.size
        side = min(round(PASTED * max(width, height)), width, height)
        left, top = (int(random.integers(0, room - side + 1)) for room in (width, height))
        picture.paste(_square(above[0], side), (left, top))
        yield picture, above[1], below[1], (left / width, top / height, (left + side) / width, (top + side) / height)


def _choose(shots: Sequence[Shot], count: int, seed: int) -> Iterator[tuple[Shot, Shot]]:
    """Pairs at random that do not show the same."""
    random = np.random.default_rng(seed)
    found = 0
    while found < count:
        first, second = (shots[index] for index in random.choice(len(shots), 2, replace=False))
        if first[1] != second[1]:
            found += 1
            yield first, second


def _kinds(photographs: Path) -> list[Shot]:
    """The photographs that show one of the kinds, by WordNet's names in both."""
    lines = [line for line in KINDS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    kind_of = {
        name: kind.strip() for kind, _, names in (line.rpartition(":") for line in lines) for name in names.split()
    }
    paths = sorted(photographs.rglob("n*_*.JPEG"))
    return [(path, kind_of[path.name[:9]]) for path in paths if path.name[:9] in kind_of]


def _square(path: Path, side: int) -> Image.Image:
    return ImageOps.fit(Image.open(path).convert("RGB"), (side, side), Image.Resampling.BICUBIC)


def _peak(heat: Heat) -> tuple[float, float]:
    """Where it is highest, from 0 to 1 across and down."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return float((column + 0.5) / heat.shape[1]), float((row + 0.5) / heat.shape[0])


if __name__ == "__main__":
    main()
