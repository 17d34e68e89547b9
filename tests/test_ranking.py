from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from clip_app.bank import LabelBank
from clip_app.labels import query_group
from clip_app.model import Model
from clip_app.ranking import ALIKE, near_duplicates, rank_by_picture, rank_by_text
from clip_app.scoring import score

Rows = npt.NDArray[np.float32]


def unit(rows: npt.ArrayLike) -> Rows:
    found = np.asarray(rows, np.float32)
    unit_rows: Rows = found / np.linalg.norm(found, axis=-1, keepdims=True)
    return unit_rows


@pytest.fixture(scope="module")
def some() -> Rows:
    return unit(np.random.default_rng(16).normal(size=(700, 24)))


def test_the_nearest_picture_comes_first_and_equal_ones_as_they_came() -> None:
    pictures = unit([[0, 1], [1, 1], [1, 0], [1, 1]])
    ranking = rank_by_picture(unit([1, 0]), pictures)
    assert ranking.order.tolist() == [2, 1, 3, 0]
    assert ranking.scores == pytest.approx([0, 0.5**0.5, 1, 0.5**0.5])


def test_a_picture_is_relevant_to_a_picture_from_a_cosine_on() -> None:
    pictures = np.array([[cosine, (1 - cosine**2) ** 0.5] for cosine in (ALIKE + 0.01, ALIKE - 0.01)], np.float32)
    assert rank_by_picture(unit([1, 0]), pictures).relevant.tolist() == [True, False]
    assert rank_by_picture(unit([1, 0]), pictures, alike=0.5).relevant.tolist() == [True, True]


def test_a_picture_is_relevant_to_a_text_where_it_would_be_confident_alone(some: Rows) -> None:
    query, neutral, pictures = some[0], some[1:5], some[5:205]
    ranking = rank_by_text(query, pictures, neutral, 20.0)
    alone = [score(picture, query[None], neutral, 20.0, independent=True).confidence[0] for picture in pictures]
    assert ranking.relevant.tolist() == [confidence > 0.5 for confidence in alone]
    assert 0 < ranking.relevant.sum() < len(pictures)


def test_no_pictures_have_a_ranking_and_no_pairs(some: Rows) -> None:
    none = some[:0]
    for ranking in (rank_by_text(some[0], none, some[1:3], 20.0), rank_by_picture(some[0], none)):
        assert len(ranking.order) == len(ranking.scores) == len(ranking.relevant) == 0
    assert near_duplicates(none).indices.shape == (0, 2)
    assert near_duplicates(some[:1]).indices.shape == (0, 2)


def test_near_duplicates_are_those_of_comparing_all_with_all(some: Rows) -> None:
    pairs = near_duplicates(some, threshold=0.5)
    cosines = some @ some.T
    expected = {(i, j) for i in range(len(some)) for j in range(i + 1, len(some)) if cosines[i, j] >= 0.5}
    assert {(int(i), int(j)) for i, j in pairs.indices} == expected
    assert len(expected) > 100, "over the edges of blocks, too"
    assert pairs.cosines.tolist() == sorted(pairs.cosines.tolist(), reverse=True)
    assert pairs.cosines == pytest.approx(cosines[tuple(pairs.indices.T)])


def test_of_too_many_pairs_the_nearest_are_kept(some: Rows) -> None:
    every, few = near_duplicates(some, threshold=0.3), near_duplicates(some, threshold=0.3, most=50)
    assert len(every.cosines) > 50
    assert few.cosines == pytest.approx(every.cosines[:50])
    same = near_duplicates(unit(np.ones((600, 4))))  # every one with every other
    assert len(same.cosines) == 10_000


def test_ten_thousand_pictures_are_compared_in_little_memory() -> None:
    pictures = unit(np.random.default_rng(0).normal(size=(10_000, 32)))
    pictures[9_999] = pictures[3]
    tracemalloc.start()
    pairs = near_duplicates(pictures, threshold=0.99)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pairs.indices.tolist() == [[3, 9_999]]
    assert peak < 60e6, "all cosines would take 400 MB"


def test_a_text_finds_its_pictures_among_labels_of_the_same_bank(bundled: Model, bank: LabelBank) -> None:
    """Texts stand for pictures here: each is nearest to itself, whatever the model has made of them."""
    (query,), neutral = bank.group(query_group("a cup of coffee, and a plate"))
    rows = bundled.encode_texts(["a photo of a cup of coffee, and a plate.", "a photo of a locomotive.", "a photo."])
    ranking = rank_by_text(query, rows, neutral, bundled.logit_scale)
    assert ranking.order[0] == 0
    assert ranking.relevant.tolist() == [True, False, False]
