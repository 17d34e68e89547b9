from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import small_checkpoint

from clip_app.tokenizer import Padding, Tokenizer


def tokenizer(*, context: int = 16, fill: bool = False, left: bool = False, lower_case: bool = False) -> Tokenizer:
    padding = Padding(token=9, fill=fill, left=left)
    return Tokenizer.read(
        small_checkpoint() / "tokenizer.json", context=context, padding=padding, lower_case=lower_case
    )


def test_a_text_is_as_long_as_its_words_and_cut_to_the_context() -> None:
    short, long = tokenizer(context=6).encode(["cat", "cat " * 50])
    assert len(short) < len(long) == 6
    assert long[0] == short[0], "the special tokens stay"
    assert long[-1] == short[-1]


def test_a_batch_is_as_long_as_its_longest_text_and_says_what_is_padding() -> None:
    tokens = tokenizer().pad([[1, 2, 3], [4], []])
    assert tokens.ids.tolist() == [[1, 2, 3], [4, 9, 9], [9, 9, 9]]
    assert tokens.mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert tokens.ids.dtype == tokens.mask.dtype == np.int64


def test_or_as_the_context_where_the_checkpoint_was_trained_so() -> None:
    assert tokenizer(context=5, fill=True).pad([[1, 2]]).ids.tolist() == [[1, 2, 9, 9, 9]]


def test_some_are_padded_on_the_left() -> None:
    tokens = tokenizer(left=True).pad([[1, 2, 3], [4]])
    assert tokens.ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert tokens.mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_model_of_lower_case_is_given_lower_case() -> None:
    raw = tokenizer()
    cased = raw.refilled(context=16, fill=False)
    cased._backend.normalizer = None
    assert cased.encode(["A CAT"]) != raw.encode(["a cat"]), "it would see capitals"
    cased.lower_case = True
    assert cased.encode(["A CAT"]) == raw.encode(["a cat"])


def test_for_another_length_it_is_the_same_one() -> None:
    first = tokenizer(left=True)
    other = first.refilled(context=4, fill=True)
    assert other.pad(other.encode(["cat " * 9])).ids.shape == (1, 4)
    assert (other.padding.left, other.padding.token, first.context) == (True, 9, 16)
    assert other.vocabulary == first.vocabulary > 500


@pytest.mark.parametrize("texts", [["a cat", "two dogs on a lawn"], []])
def test_what_was_saved_reads_the_same(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "tokenizer.json"
    first = tokenizer()
    first.save(path)
    again = Tokenizer.read(path, context=16, padding=Padding(token=9))
    assert again.encode(texts) == first.encode(texts)
    assert [len(ids) for ids in first.encode(texts)] == [len(first.encode([text])[0]) for text in texts]
