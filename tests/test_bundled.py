"""The model inside the package: small, right on what it says it knows, and worth its card."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_app.bank import LabelBank
from clip_app.engines import Choice
from clip_app.images import decode
from clip_app.labels import LabelGroup, load_groups, preset_folder, request_group
from clip_app.model import Model, load_model
from clip_app.scoring import Scores, score
from clip_app.source import bundled_folder, bundled_source, examples_folder

# What each example shows, for each group that is asked by default.
EXAMPLES = {
    "chelsea.jpg": {"kinds": "cat", "objects": "cat"},
    "coffee.jpg": {"kinds": "cup of coffee", "objects": "cup of coffee"},
    "pizza.jpg": {"kinds": "pizza", "objects": "pizza"},
    "taxis.jpg": {"kinds": "car", "objects": "taxi"},
    "teddy_bear.jpg": {"kinds": "teddy bear", "objects": "teddy bear"},
}
# Texts that are no label of the app, each beside the photograph that shows it.
PARAPHRASES = {
    "a small tiger for the living room, purring": "cat",
    "a hot drink that keeps you awake, in a mug": "coffee",
    "Italian flat bread with cheese and tomatoes": "pizza",
    "yellow vehicles for hire in the city": "taxis",
    "a child's stuffed toy": "teddy_bear",
}


def groups(model: Model) -> dict[str, LabelGroup]:
    assert model.label_folder
    return load_groups(model.label_folder) | load_groups(preset_folder())


def ask(model: Model, bank: LabelBank, group: LabelGroup, image: Image.Image) -> tuple[str, Scores]:
    labels, neutral = bank.group(group)
    scores = score(model.encode_images(model.preprocessing(image)[None])[0], labels, neutral, model.logit_scale)
    return group.labels[int(scores.confidence.argmax())], scores


def read(path: Path) -> Image.Image:
    return decode(path.read_bytes(), max_bytes=10**7, max_pixels=10**7).image


def test_it_is_small_and_holds_no_pickle() -> None:
    files = [path for path in bundled_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30_000_000
    assert {path.suffix for path in files} == {".json", ".onnx", ".md", ".txt", ""}
    assert [path.name for path in files if not path.suffix] == ["NOTICE"]


def test_every_example_is_known() -> None:
    assert {path.name for path in examples_folder().glob("*.jpg")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_right_in_every_group_that_is_asked(name: str, bundled: Model, bank: LabelBank) -> None:
    asked = json.loads((bundled_folder() / "config.json").read_text())["default_groups"]
    assert sorted(asked) == sorted(EXAMPLES[name])
    for group, right in EXAMPLES[name].items():
        best, scores = ask(bundled, bank, groups(bundled)[group], read(examples_folder() / name))
        assert best == right
        assert scores.no_match < scores.confidence.max()


@pytest.mark.parametrize("name", EXAMPLES)
def test_words_that_it_was_not_made_with_are_understood(name: str, bundled: Model, bank: LabelBank) -> None:
    best, _ = ask(bundled, bank, request_group(PARAPHRASES), read(examples_folder() / name))
    assert PARAPHRASES[best] in (name.removesuffix(".jpg"), {"chelsea.jpg": "cat"}.get(name))


@pytest.mark.parametrize(("picture", "group"), [("astronaut", "kinds"), ("flower", "kinds"), ("china", "absent")])
def test_where_no_label_is_there_nothing_matches(
    picture: str, group: str, bundled: Model, bank: LabelBank, photographs: dict[str, Path]
) -> None:
    offered = groups(bundled) | {"absent": request_group(["banana", "teapot", "goldfish", "bicycle", "violin"])}
    _, scores = ask(bundled, bank, offered[group], read(photographs[picture]))
    assert scores.no_match > max(0.4, scores.confidence.max())


@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_a_plain_colour_matches_nothing(brightness: int, bundled: Model, bank: LabelBank) -> None:
    _, scores = ask(bundled, bank, groups(bundled)["kinds"], Image.new("L", (300, 200), brightness).convert("RGB"))
    assert scores.no_match > max(0.4, scores.confidence.max())


def test_openvino_and_onnxruntime_agree_on_it(bundled: Model) -> None:
    other = load_model(bundled_source(), Choice("onnxruntime", "float32"))
    assert (bundled.info.precision, other.info.precision) == ("int8", "int8")
    pixels = np.stack([bundled.preprocessing(read(examples_folder() / name)) for name in EXAMPLES])
    for ours, theirs in (
        (bundled.encode_images(pixels), other.encode_images(pixels)),
        (bundled.encode_texts(list(PARAPHRASES)), other.encode_texts(list(PARAPHRASES))),
    ):
        assert (ours * theirs).sum(1).min() > 0.9999, "float32 is not rounded to 8 bits on the way"


def test_its_card_states_what_was_measured() -> None:
    card = (bundled_folder() / "README.md").read_text()
    rows = re.findall(r"\| ([^|]+?): top-1 \| ([\d.]+)% \| ≥ (\d+) % \|", card)
    assert len(rows) == 4, "kinds, names, broad words and paraphrases"
    assert all(float(measured) >= float(goal) for _, measured, goal in rows)
    assert "The classifier may have been trained on them" in card
    assert "Caltech-101" in card


def test_what_it_is_made_of_is_named_with_its_licence() -> None:
    notice = (bundled_folder() / "NOTICE").read_text()
    for part in ("EfficientNet-Lite2", "all-MiniLM-L6-v2", "WordNet 3.0", "Apache License 2.0"):
        assert part in notice
