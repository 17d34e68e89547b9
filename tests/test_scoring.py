from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from clip_app.scoring import score

rng = np.random.default_rng(0)


def unit(*shape: int) -> npt.NDArray[np.float32]:
    x = rng.standard_normal(shape).astype(np.float32)
    rows: npt.NDArray[np.float32] = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return rows


def test_confidences_and_no_match_are_one_softmax() -> None:
    image, labels, neutral = unit(8), unit(5, 8), unit(3, 8)
    scores = score(image, labels, neutral, 100.0)
    logits = 100.0 * np.concatenate([labels, neutral]) @ image.astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(scores.confidence, expected[:5], rtol=1e-5, atol=1e-9)
    assert scores.no_match == pytest.approx(expected[5:].sum(), rel=1e-5)
    assert scores.confidence.sum() + scores.no_match == pytest.approx(1)


def test_similarity_is_the_raw_cosine() -> None:
    image, labels = unit(8), unit(5, 8)
    np.testing.assert_allclose(score(image, labels, unit(1, 8), 100.0).similarity, labels @ image, rtol=1e-6)


def test_an_independent_label_does_not_feel_the_others() -> None:
    image, labels, neutral = unit(8), unit(5, 8), unit(3, 8)
    together = score(image, labels, neutral, 20.0, independent=True)
    alone = [score(image, labels[i : i + 1], neutral, 20.0) for i in range(5)]
    np.testing.assert_allclose(together.confidence, [s.confidence[0] for s in alone], rtol=1e-5)
    assert together.no_match == pytest.approx(1 - together.confidence.max())


@pytest.mark.parametrize("independent", [False, True])
def test_extreme_scales_stay_finite(independent: bool) -> None:
    scores = score(unit(8), unit(5, 8), unit(3, 8), 1e6, independent=independent)
    assert np.isfinite(scores.confidence).all()
    assert 0 <= scores.no_match <= 1


def test_what_is_nearer_scores_higher_together_or_alone() -> None:
    image = np.array([1, 0], np.float32)
    labels = np.array([[0.6, 0.8], [1, 0], [0, 1]], np.float32)
    neutral = np.array([[0.6, -0.8]], np.float32)
    for independent in (False, True):
        scores = score(image, labels, neutral, 10.0, independent=independent)
        assert list(np.argsort(-scores.confidence)) == [1, 0, 2]
    assert scores.confidence[0] == pytest.approx(0.5), "as near as what names nothing"
    assert scores.confidence[1] == pytest.approx(1 / (1 + np.exp(-4)))


def test_without_a_scale_all_are_alike() -> None:
    scores = score(unit(8), unit(3, 8), unit(2, 8), 0.0)
    np.testing.assert_allclose(scores.confidence, 1 / 5)
    assert scores.no_match == pytest.approx(2 / 5)
