from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from clip_app.bank import LabelBank, LabelStore
from clip_app.labels import LabelGroup, request_group
from clip_app.model import Model

GROUP = LabelGroup(
    name="pets",
    title="Pets",
    labels=tuple(f"pet number {i}" for i in range(70)),
    templates=("a photo of a {}.", "{}"),
    neutral=("a photo.", "an image."),
)


def count(result: str) -> float:
    return REGISTRY.get_sample_value("clip_app_label_cache_total", {"result": result}) or 0.0


def test_a_labels_embedding_is_the_unit_mean_over_its_templates(bundled: Model) -> None:
    labels, neutral = LabelBank(bundled).group(GROUP)
    prompts = bundled.encode_texts(["a photo of a pet number 3.", "pet number 3"]).mean(0)
    np.testing.assert_allclose(labels[3], prompts / np.linalg.norm(prompts), atol=1e-5)
    np.testing.assert_allclose(neutral, bundled.encode_texts(GROUP.neutral), atol=1e-5)


def test_a_kept_group_is_the_same_and_reports_its_progress(bundled: Model) -> None:
    bank, shares = LabelBank(bundled), []
    bank.keep(GROUP, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    kept, fresh = bank.group(GROUP), LabelBank(bundled).group(GROUP)
    np.testing.assert_allclose(kept[0], fresh[0], atol=1e-5)
    np.testing.assert_allclose(kept[1], fresh[1], atol=1e-5)


def test_known_labels_are_not_computed_again(bundled: Model) -> None:
    bank = LabelBank(bundled)
    bank.group(request_group(["cat", "dog"]))
    hits, misses = count("hit"), count("miss")
    bank.group(request_group(["dog", "cat", "bird"]))
    assert count("miss") - misses == 1
    assert count("hit") - hits == 2 + 4  # two labels, four neutral prompts


def test_the_same_label_in_another_prompt_is_another_embedding(bundled: Model) -> None:
    bank = LabelBank(bundled)
    plain, drawn = bank.group(request_group(["cat"]))[0], bank.group(request_group(["cat"], "a drawing of a {}."))[0]
    assert not np.allclose(plain, drawn)


def test_the_bank_stays_bounded_and_right(bundled: Model) -> None:
    bank = LabelBank(bundled, capacity=10)
    first = bank.group(request_group(["first"]))[0]
    for i in range(8):
        bank.group(request_group([f"label {3 * i + j}" for j in range(3)]))
    assert len(bank._own) == 10
    np.testing.assert_allclose(bank.group(request_group(["first"]))[0], first, atol=1e-5)


def test_more_labels_than_the_capacity_still_get_an_answer(bundled: Model) -> None:
    assert LabelBank(bundled, capacity=2).group(GROUP)[0].shape[0] == pytest.approx(70)


def test_a_stored_label_is_never_computed_again_not_even_in_another_group(bundled: Model, tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.safetensors")
    first = LabelBank(bundled, store=store).keep(GROUP)
    misses = count("miss")
    again = LabelBank(bundled, store=store).keep(GROUP)
    assert count("miss") == misses
    np.testing.assert_array_equal(again[0], first[0])
    grown = dataclasses.replace(GROUP, name="more", labels=("a new pet", *GROUP.labels[:5]))
    grown_labels, _ = LabelBank(bundled, store=store).keep(grown)
    assert count("miss") == misses + 1
    np.testing.assert_array_equal(grown_labels[1:], first[0][:5])


def test_a_damaged_store_is_computed_anew(bundled: Model, tmp_path: Path) -> None:
    path = tmp_path / "labels.safetensors"
    expected = LabelBank(bundled, store=LabelStore(path)).keep(GROUP)[0]
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_allclose(LabelBank(bundled, store=LabelStore(path)).keep(GROUP)[0], expected, atol=1e-5)
    assert len(LabelStore(path).read()) == 72


def test_labels_asked_for_again_are_found_as_a_whole_and_stay_bounded(bundled: Model) -> None:
    bank = LabelBank(bundled, capacity=10)
    group = request_group(["one", "two"])
    assert bank.group(group)[0] is bank.group(request_group(["one", "two"]))[0]
    for i in range(20):
        bank.group(request_group([f"label {i}", f"other {i}"]))
    assert sum(len(kept.labels) for kept in bank._latest) <= 10
