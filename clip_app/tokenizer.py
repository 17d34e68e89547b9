"""Texts to tokens, with the checkpoint's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers

__all__ = ["Tokenizer", "Tokens"]

Tokens = npt.NDArray[np.int64]


class Tokenizer:
    """Cuts texts to the context of the text encoder, and fills a batch up to one length."""

    def __init__(self, backend: tokenizers.Tokenizer, *, context: int, padding_id: int, fill_context: bool) -> None:
        """Take over ``backend``; ``fill_context`` fills up to the full length, as SigLIP was trained."""
        self.context = context
        self.padding_id = padding_id
        self.fill_context = fill_context
        self._backend = backend
        backend.no_padding()
        backend.enable_truncation(context)

    @classmethod
    def read(cls, path: Path, *, context: int, padding_id: int, fill_context: bool) -> Tokenizer:
        """Read a file that :meth:`save` wrote."""
        backend = tokenizers.Tokenizer.from_file(str(path))
        return cls(backend, context=context, padding_id=padding_id, fill_context=fill_context)

    def save(self, path: Path) -> None:
        """Write tokenizer.json."""
        self._backend.save(str(path))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, at most ``context`` of them, special tokens included."""
        return [encoding.ids for encoding in self._backend.encode_batch(list(texts))]

    def pad(self, ids: Sequence[Sequence[int]]) -> Tokens:
        """Return tokens of shape [N, T]: as long as the longest, or as the context.

        The encoders need no mask: CLIP's is causal, and SigLIP was trained without one.
        """
        length = self.context if self.fill_context else max(map(len, ids))
        tokens = np.full((len(ids), length), self.padding_id, np.int64)
        for row, text in zip(tokens, ids, strict=True):
            row[: len(text)] = text
        return tokens
