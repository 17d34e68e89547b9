"""The checkpoint inside the package: small, in the Hub's format, and worth its banner."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from clip_app.bank import LabelBank
from clip_app.images import decode
from clip_app.labels import load_groups
from clip_app.model import Model
from clip_app.scoring import Scores, score
from clip_app.source import bundled_folder


def kinds(model: Model, bank: LabelBank, pixels: np.ndarray) -> tuple[list[str], Scores]:
    assert model.label_folder
    group = load_groups(model.label_folder)["kinds"]
    labels, neutral = bank.group(group)
    scores = score(model.encode_images(pixels[None])[0], labels, neutral, model.logit_scale)
    return [group.labels[i] for i in np.argsort(-scores.confidence)], scores


def test_it_is_small_and_holds_no_pickle() -> None:
    files = [path for path in bundled_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md", ".txt"}


def test_it_knows_what_it_was_trained_on(bundled: Model, bank: LabelBank, photographs: dict[str, Path]) -> None:
    image = decode(photographs["coffee"].read_bytes(), max_bytes=10**7, max_pixels=10**7).image
    names, scores = kinds(bundled, bank, bundled.preprocessing(image))
    assert names[0] == "cup of coffee"
    assert scores.confidence.max() > 0.5
    assert scores.no_match < 0.1


def test_a_picture_of_nothing_matches_nothing(bundled: Model, bank: LabelBank) -> None:
    noise = np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32)
    assert kinds(bundled, bank, noise)[1].no_match > 0.5


def test_its_card_states_what_was_measured() -> None:
    card = (bundled_folder() / "README.md").read_text()
    row = re.search(r"\| (\d+\.\d)% \| (\d+\.\d)% \|", card)
    assert row
    assert float(row[1]) >= 40
    assert float(row[2]) >= 70
    assert "held-out" in card
