from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clip_app.source import bundled_folder
from clip_app.tokenizer import Tokenizer


def tokenizer(*, context: int = 16, fill_context: bool = False) -> Tokenizer:
    path = bundled_folder() / "tokenizer.json"
    return Tokenizer.read(path, context=context, padding_id=9, fill_context=fill_context)


def test_a_text_is_as_long_as_its_words_and_cut_to_the_context() -> None:
    short, long = tokenizer(context=6).encode(["cat", "cat " * 50])
    assert len(short) < len(long) == 6
    assert long[0] == short[0], "the special tokens stay"
    assert long[-1] == short[-1]


def test_a_batch_is_as_long_as_its_longest_text() -> None:
    tokens = tokenizer().pad([[1, 2, 3], [4], []])
    assert tokens.tolist() == [[1, 2, 3], [4, 9, 9], [9, 9, 9]]
    assert tokens.dtype == np.int64


def test_or_as_the_context_where_the_checkpoint_was_trained_so() -> None:
    assert tokenizer(context=5, fill_context=True).pad([[1, 2]]).tolist() == [[1, 2, 9, 9, 9]]


@pytest.mark.parametrize("texts", [["a cat", "two dogs on a lawn"], []])
def test_what_was_saved_reads_the_same(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "tokenizer.json"
    first = tokenizer()
    first.save(path)
    again = Tokenizer.read(path, context=16, padding_id=9, fill_context=False)
    assert again.encode(texts) == first.encode(texts)
    assert [len(ids) for ids in first.encode(texts)] == [len(first.encode([text])[0]) for text in texts]
