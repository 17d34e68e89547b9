"""What the model is worth, asked as the app asks: its prompts, its preprocessing, its scoring."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from encoders import Encoders, compile_model
from figures import Asked, Flags, ask
from space import Space
from texts import Classes, dominant
from vit import IMAGE_SIZE, write_vit
from wordnet import WordNet

from clip_app.labels import LabelGroup, load_groups, parse_group, preset_folder, request_group

__all__ = ["Figures", "Measurement", "measure"]

QUESTIONS = Path(__file__).parent / "questions"
ENDINGS = {".jpg", ".jpeg", ".png"}
SUBSETS = 10  # random choices of labels, over which the open-set figures are means
PER_LABEL = 15  # pictures of each label of the independent set, the first by name
BACKGROUND = 120
WARM_UP, TIMED = 5, 60  # runs of each encoder; the median of the latter counts

Row = tuple[str, ...]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Figures:
    """Tables for the card, by name; absent where there were no pictures for them."""

    tables: dict[str, list[Row]]


@dataclass(frozen=True)
class Measurement:
    """The model in both precisions, and what says which label is right."""

    model: Encoders
    reference: Encoders
    wordnet: WordNet
    classes: Classes
    space: Space

    def ask(self, images: Rows, group: LabelGroup, right: Flags) -> Asked:
        """Ask every picture about a group; ``right`` is [N, L]."""
        return ask(images, *self.model.group(group), self.model.scale, right)

    def members(self, label: str) -> frozenset[int]:
        """The classes that are pictures of a label, by the meaning that it mostly has; none where there is none."""
        return self.space.members.get(dominant(self.wordnet, label) or "", frozenset())


def measure(
    measurement: Measurement, photographs: Path | None, independent: Path | None, background: Path | None, labels: Path
) -> Figures:
    """Measure everything that there are pictures for."""
    tables: dict[str, list[Row]] = {"time": _times(measurement)}
    group = parse_group(labels.stem, labels.read_text(encoding="utf-8"))
    tables["examples"] = _examples(measurement, group)
    if photographs:
        paths = sorted(path for path in photographs.rglob("n*") if path.suffix.lower() in ENDINGS)
        truth = np.array([measurement.classes.synsets.index(path.name[:9]) for path in paths])
        images = measurement.model.images(paths)
        tables["photographs"] = list(_photographs(measurement, group, images, truth))
        tables["groups"] = [_worth(measurement, item, images, truth) for item in load_groups(preset_folder()).values()]
        tables["agreement"] = _agreement(measurement, paths[::10], images[::10])
        tables["maps"] = _maps(measurement, paths, truth)
    if independent:
        tables["independent"] = list(_independent(measurement, independent, background))
    return Figures(tables)


def _photographs(measurement: Measurement, kinds: LabelGroup, images: Rows, truth: npt.NDArray[Any]) -> Iterator[Row]:
    """Pictures of ImageNet's classes, asked about kinds, names, broad words and paraphrases."""
    synsets = measurement.classes.synsets
    answers = {label: names.split() for label, names in _questions("kinds.txt")}
    right = _right(truth, [{synsets.index(name) for name in answers[label]} for label in kinds.labels])
    shown = right.any(axis=1)
    asked = measurement.ask(images[shown], kinds, right[shown])
    yield _percent(f"the {len(kinds.labels)} kinds, {shown.sum()} photographs: top-1", asked.top(1), "≥ 90")
    yield _percent("… top-5", asked.top(5), "≥ 95")
    yield _percent("… expected calibration error", asked.calibration(), "≤ 5")
    yield from _open_set(measurement, kinds, images[shown], right[shown], 29, ("≥ 0.95", "≤ 0.1", "≥ 0.65"))

    names = request_group(dict.fromkeys(measurement.classes.names))
    right = _right(truth, [_named(measurement.classes, label) for label in names.labels])
    asked = measurement.ask(images, names, right)
    yield _percent(f"{len(names.labels):,} class names, {len(images):,} photographs: top-1", asked.top(1), "≥ 73")
    yield _percent("… top-5", asked.top(5), "≥ 87")
    yield _percent("… expected calibration error", asked.calibration(), "≤ 5")
    yield from _open_set(measurement, names, images, right, 20, ("≥ 0.95", "≤ 0.1", "≥ 0.65"))
    yield from _open_set(measurement, names, images, right, 500, ("≥ 0.85", "", ""))

    words = _questions("broad.txt")
    broad = request_group(word for word, _ in words)
    right = _right(truth, [measurement.space.members[name] for _, name in words])
    asked = measurement.ask(images, broad, right)
    count = right.any(axis=1).sum()
    yield _percent(f"{len(words)} broad words, {count} photographs: top-1", asked.top(1), "≥ 84")
    yield _percent("… top-3", asked.top(3), "")
    yield ("… AUROC of no_match, photographs of none of them", f"{asked.open_set():.3f}", "")

    phrases = _questions("paraphrases.txt")
    right = _right(truth, [{synsets.index(name)} for _, name in phrases])
    shown = right.any(axis=1)
    asked = measurement.ask(images[shown], request_group(phrase for phrase, _ in phrases), right[shown])
    yield _percent(f"{len(phrases)} paraphrases, {shown.sum()} photographs: top-1", asked.top(1), "≥ 80")
    yield _percent("… top-5", asked.top(5), "≥ 90")


def _open_set(
    measurement: Measurement, group: LabelGroup, images: Rows, right: Flags, count: int, goals: tuple[str, str, str]
) -> Iterator[Row]:
    """Ask about ``count`` of the labels at random: pictures of those, and pictures of the rest."""
    labels, neutral = measurement.model.group(group)
    random = np.random.default_rng(0)
    pictured = np.flatnonzero(right.any(axis=0))
    subsets = [random.choice(pictured, count, replace=False) for _ in range(SUBSETS)]
    results = [ask(images, labels[subset], neutral, measurement.model.scale, right[:, subset]) for subset in subsets]
    what = f"{count} of them as labels: "
    yield (f"{what}AUROC of no_match", f"{np.mean([item.open_set() for item in results]):.3f}", goals[0])
    for present, name, goal in ((True, "is", goals[1]), (False, "is not", goals[2])):
        value = np.mean([item.mean_no_match(present=present) for item in results])
        yield (f"… mean no_match where the label {name} among them", f"{value:.3f}", goal)


def _worth(measurement: Measurement, group: LabelGroup, images: Rows, truth: npt.NDArray[Any]) -> Row:
    """How right a preset group is on pictures of those of its labels that are a class or a kind by name."""
    members = [measurement.members(label) for label in group.labels]
    right = _right(truth, members)
    known = sum(map(bool, members))
    if not known:
        return (f"`{group.name}`", f"0 of {len(group.labels)}", "0", "-", "-", "-")
    asked = measurement.ask(images, group, right)
    return (
        f"`{group.name}`",
        f"{known} of {len(group.labels)}",
        f"{right.any(axis=1).sum()}",
        f"{asked.top(1):.1%}",
        f"{asked.top(5):.1%}",
        f"{right.sum(axis=1)[right.any(axis=1)].mean() / len(group.labels):.1%}",
    )


def _independent(measurement: Measurement, folder: Path, background: Path | None) -> Iterator[Row]:
    """Pictures of others, one folder a label: labels that are a class or kind by name, and all labels."""
    renamed = dict(_questions("independent.txt"))
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and path != background)
    owners = [renamed.get(path.name, path.name.replace("_", " ")) for path in folders]
    chosen = [
        (path, owner) for item, owner in zip(folders, owners, strict=True) for path in _pictures(item)[:PER_LABEL]
    ]
    images = measurement.model.images([path for path, _ in chosen])
    everything = list(dict.fromkeys(owners))
    known = [label for label in everything if measurement.members(label)]
    others = [label for label in everything if label not in known]
    for labels, what in ((known, "labels that WordNet puts at or above a class"), (others, "other labels")):
        right = np.array([[owner == label for label in everything] for _, owner in chosen])
        shown = np.array([owner in labels for _, owner in chosen])
        asked = measurement.ask(images[shown], request_group(everything), right[shown])
        yield _percent(
            f"{len(labels)} {what}, {shown.sum()} pictures, among all {len(everything)}: top-1", asked.top(1)
        )
        yield _percent("… top-5", asked.top(5))
    right = np.array([[owner == label for label in known] for _, owner in chosen])
    asked = measurement.ask(images, request_group(known), right)
    yield _percent(f"the {len(known)} known labels alone: top-1", asked.top(1))
    yield _percent("… expected calibration error", asked.calibration(), "≤ 5")
    yield ("… AUROC of no_match, pictures of the other labels", f"{asked.open_set():.3f}")
    yield ("… mean no_match where the label is among them", f"{asked.mean_no_match(present=True):.3f}")
    yield ("… mean no_match where it is not", f"{asked.mean_no_match(present=False):.3f}")
    if background:
        images = measurement.model.images(_pictures(background)[:BACKGROUND])
        asked = measurement.ask(images, request_group(known), np.zeros((len(images), len(known)), bool))
        yield (f"… mean no_match, {len(images)} pictures of no label", f"{asked.mean_no_match(present=False):.3f}")


def _examples(measurement: Measurement, kinds: LabelGroup) -> list[Row]:
    """The best label of each example picture, or that nothing matches."""
    rows: list[Row] = []
    paths = _pictures(Path(preset_folder()).parent / "examples")
    images = measurement.model.images(paths)
    asked = measurement.ask(images, kinds, np.zeros((len(paths), len(kinds.labels)), bool))
    for path, confidence, no_match in zip(paths, asked.confidence, asked.no_match, strict=True):
        best = int(confidence.argmax())
        rows.append((f"`{path.name}`", kinds.labels[best], f"{confidence[best]:.2f}", f"{no_match:.2f}"))
    return rows


def _agreement(measurement: Measurement, paths: Sequence[Path], images: Rows) -> list[Row]:
    """Least cosines: int8 to float32, and OpenVINO to onnxruntime on the int8 files."""
    model, reference = measurement.model, measurement.reference
    texts = [f"a photo of a {name}." for name in measurement.classes.names[::10]]
    vision, text = (onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in model.paths)
    seen = np.concatenate([vision.run(["image_embeds"], {"pixel_values": model.pixels([path])})[0] for path in paths])
    read = []
    for item in texts:
        ids = np.array([model.tokenizer.encode(item).ids])
        read.append(text.run(["text_embeds"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])
    pairs = {
        "int8 to float32": (images, reference.images(paths), model.texts(texts), reference.texts(texts)),
        "OpenVINO to onnxruntime, int8": (images, seen, model.texts(texts), np.concatenate(read)),
    }
    return [
        (name, f"{(a * b).sum(axis=1).min():.5f}", f"{(c * d).sum(axis=1).min():.5f}")
        for name, (a, b, c, d) in pairs.items()
    ]


def _maps(measurement: Measurement, paths: Sequence[Path], truth: npt.NDArray[Any], pairs: int = 200) -> list[Row]:
    """Two pictures side by side: is a label's map highest in the half that shows it?"""
    random = np.random.default_rng(0)
    count = measurement.space.classes
    hits = 0
    for _ in range(pairs):
        left, right = random.choice(len(paths), 2, replace=False)
        names = [f"a photo of a {measurement.classes.names[truth[index]]}." for index in (left, right)]
        rows = measurement.model.texts(names)[:, :count]
        both = np.concatenate(list(measurement.model.pixels([paths[left], paths[right]])), axis=-1)
        maps = measurement.model.maps(both[None])[0]
        heat = np.tensordot(np.maximum(rows[0] - rows[1], 0), maps, 1)
        column = np.unravel_index(heat.argmax(), heat.shape)[1]
        hits += int(column < heat.shape[1] / 2)
    return [(f"{pairs} pairs of photographs side by side: the maximum lies in the right one", f"{hits / pairs:.1%}")]


def _times(measurement: Measurement) -> list[Row]:
    """The median time of one picture, beside CLIP's ViT-B/32, by the processor's own precision and in float32."""
    rows: list[Row] = []
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vit.onnx"
        write_vit(path)
        for precision, name in ((None, "the processor's own"), ("f32", "float32")):
            sides = measurement.model.preprocessing.shape[-1], IMAGE_SIZE
            pixels = [random.standard_normal((1, 3, side, side)).astype(np.float32) for side in sides]
            models = [compile_model(item, precision=precision) for item in (measurement.model.paths[0], path)]
            # In turns, so that what else the machine does meets both.
            taken = [
                [_time(model, item) for model, item in zip(models, pixels, strict=True)] for _ in range(TIMED + WARM_UP)
            ]
            ours, theirs = np.median(taken[WARM_UP:], axis=0) * 1000
            rows.append((name, f"{ours:.1f} ms", f"{theirs:.1f} ms", f"1 / {theirs / ours:.1f}"))
    return rows


def _time(model: Any, pixels: Rows) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    model(pixels)
    return time.perf_counter() - start


def _right(truth: npt.NDArray[Any], members: Sequence[frozenset[int] | set[int]]) -> Flags:
    """Which labels are right for which picture, [N, L], from the classes that belong to each label."""
    return np.array([[index in items for items in members] for index in truth])


def _named(classes: Classes, label: str) -> set[int]:
    """Two classes may share a name, which is then right for both."""
    return {index for index, name in enumerate(classes.names) if name == label}


def _questions(name: str) -> list[tuple[str, str]]:
    """Read ``text: answer`` lines; a text may hold colons, an answer none."""
    lines = (QUESTIONS / name).read_text(encoding="utf-8").splitlines()
    parts = [line.rpartition(":") for line in lines if line and not line.startswith("#")]
    return [(text.strip(), answer.strip()) for text, _, answer in parts]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)


def _percent(what: str, value: float, goal: str = "") -> Row:
    return (what, f"{value:.1%}", f"{goal} %" if goal else "")
