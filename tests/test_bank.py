from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from clip_app.bank import LabelBank, LabelStore
from clip_app.engines import Embeddings
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
    bank = LabelBank(bundled)
    shares: list[float] = []
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


def misses_of(bank: LabelBank, *labels: str) -> float:
    """Ask for labels, and return how many embeddings had to be computed."""
    before = count("miss")
    bank.group(request_group(labels))
    return count("miss") - before


NEUTRAL = len(request_group(["x"]).neutral)
SMALL = dataclasses.replace(GROUP, labels=GROUP.labels[:2])


def test_as_many_embeddings_as_the_capacity_stay_and_the_one_not_asked_for_longest_goes(bundled: Model) -> None:
    bank = LabelBank(bundled, capacity=NEUTRAL + 3)
    assert misses_of(bank, "a") == NEUTRAL + 1
    assert [misses_of(bank, label) for label in ("b", "c")] == [1, 1]
    assert misses_of(bank, "a", "b", "c") == 0, "all of them are there"
    assert misses_of(bank, "b", "a") == 0, "and c is asked for the longest ago"
    assert misses_of(bank, "d") == 1
    assert misses_of(bank, "a", "b", "d") == 0
    assert misses_of(bank, "c") == 1


def test_groups_asked_for_as_a_whole_stay_up_to_the_capacity_in_labels(bundled: Model) -> None:
    bank = LabelBank(bundled, capacity=4)
    kept = {labels: bank.group(request_group(labels))[0] for labels in (("a", "b"), ("c", "d"))}
    for labels in (("c", "d"), ("a", "b")):
        assert bank.group(request_group(labels))[0] is kept[labels]
    bank.group(request_group(["e"]))
    assert bank.group(request_group(["a", "b"]))[0] is kept["a", "b"], "asked for lately"
    assert bank.group(request_group(["c", "d"]))[0] is not kept["c", "d"]


def test_a_group_larger_than_the_capacity_is_kept_while_it_is_the_only_one(bundled: Model) -> None:
    bank = LabelBank(bundled, capacity=2)
    group = request_group(["a", "b", "c"])
    assert bank.group(group)[0] is bank.group(group)[0]


def test_hits_and_misses_together_are_the_embeddings_that_were_asked_for(bundled: Model) -> None:
    bank = LabelBank(bundled)
    size = len(SMALL.labels) + len(SMALL.neutral)
    hits, misses = count("hit"), count("miss")
    bank.keep(SMALL)
    assert (count("hit") - hits, count("miss") - misses) == (0, size)
    bank.keep(dataclasses.replace(SMALL, name="other"))
    assert (count("hit") - hits, count("miss") - misses) == (size, size)
    bank.group(SMALL)
    assert (count("hit") - hits, count("miss") - misses) == (size + len(SMALL.labels), size)
    own = request_group(["a", "b"])
    for times in (1, 2):
        bank.group(own)
        assert count("miss") - misses == size + NEUTRAL + 2
        assert count("hit") - hits == size + len(SMALL.labels) + (times - 1) * (NEUTRAL + 2)


def test_a_preset_group_is_kept_without_being_asked_to(bundled: Model) -> None:
    bank = LabelBank(bundled)
    assert bank.group(SMALL)[0] is bank.group(SMALL)[0] is bank.keep(SMALL)[0]


def test_every_share_of_a_group_is_larger_than_the_one_before_and_above_nothing(bundled: Model) -> None:
    shares: list[float] = []
    LabelBank(bundled).keep(GROUP, shares.append)
    assert len(shares) > 1
    assert 0 < shares[0] < shares[-1] == 1
    assert len(set(shares)) == len(shares)


def test_a_store_is_written_only_when_there_is_something_new(bundled: Model, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "labels.safetensors"
    LabelBank(bundled, store=LabelStore(path)).keep(SMALL)
    first = path.stat().st_ino
    LabelBank(bundled, store=LabelStore(path)).keep(SMALL)
    assert path.stat().st_ino == first


def test_a_store_that_cannot_be_written_costs_nothing_but_time(bundled: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = LabelStore(tmp_path / "file" / "labels.safetensors")
    assert LabelBank(bundled, store=store).keep(SMALL)[0].shape[0] == len(SMALL.labels)
    assert store.read() == {}


def test_two_requests_with_the_same_new_labels_compute_them_once(
    bundled: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate, encode = threading.Event(), threading.Event(), bundled.encode_texts

    def hold(texts: Sequence[str]) -> Embeddings:
        entered.set()
        assert gate.wait(10)
        return encode(texts)

    monkeypatch.setattr(bundled, "encode_texts", hold)
    bank, together, misses = LabelBank(bundled), threading.Barrier(5), count("miss")

    def ask() -> Embeddings:
        together.wait(10)
        return bank.group(request_group(["a", "b"]))[0]

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        together.wait(10)
        assert entered.wait(10)
        gate.set()
        answers = [future.result(10) for future in asked]
    assert count("miss") - misses == NEUTRAL + 2
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])


def test_of_two_groups_that_do_not_fit_together_the_later_one_stays(bundled: Model) -> None:
    bank = LabelBank(bundled, capacity=3)
    first, second = (request_group(labels) for labels in (["a", "b"], ["c", "d"]))
    kept = bank.group(first)[0]
    later = bank.group(second)[0]
    assert bank.group(second)[0] is later
    assert bank.group(first)[0] is not kept


@pytest.mark.parametrize("labels", [("cat", "a cat"), ("café", "cafe"), ("x " * 90 + "one", "x " * 90 + "two")])
def test_labels_that_are_the_same_tokens_are_one(bundled: Model, labels: tuple[str, str]) -> None:
    group, warnings = LabelBank(bundled).as_read(request_group([*labels, "dog"]))
    assert group.labels == (" ".join(labels[0].split()), "dog")
    assert "was left out" in warnings[-1]


def test_a_label_that_is_cut_is_said_to_be(bundled: Model) -> None:
    bank = LabelBank(bundled)
    long = "x y " * 45 + "z"
    group, warnings = bank.as_read(request_group(["cat", long]))
    assert group.labels == ("cat", long)
    assert warnings == (f'"{long[:40]}..." is longer than the 64 tokens that the model reads, and was cut.',)
    assert bank.as_read(GROUP) == (GROUP, ()), "a group of the operator's stays as it is"
