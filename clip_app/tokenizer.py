"""Texts to tokens, with the checkpoint's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

__all__ = ["Padding", "TokenizedText", "Tokenizer", "Tokens"]


@dataclass(frozen=True)
class Tokens:
    """A batch of texts: token numbers and, where 1, which of them are not padding; both int64 [N, T]."""

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.int64]


class TokenizedText(NamedTuple):
    """A text's tokens, at most as many as the encoder reads, and whether there were more."""

    ids: tuple[int, ...]
    cut: bool


@dataclass(frozen=True)
class Padding:
    """How the texts of a batch are made equally long.

    ``fill`` fills up to the whole context, as SigLIP was trained.
    """

    token: int = 0
    left: bool = False
    fill: bool = False


class Tokenizer:
    """Cuts texts to the context of the text encoder, and fills a batch up to one length."""

    def __init__(
        self, backend: tokenizers.Tokenizer, *, context: int, padding: Padding, lower_case: bool = False
    ) -> None:
        """Take over ``backend``."""
        self.context = context
        self.padding = padding
        self.lower_case = lower_case
        self._backend = backend
        backend.no_padding()
        backend.enable_truncation(context)

    @classmethod
    def read(cls, path: Path, *, context: int, padding: Padding, lower_case: bool = False) -> Tokenizer:
        """Read tokenizer.json.

        Raises:
            Exception: it is not one; the library raises nothing narrower.
        """
        return cls(tokenizers.Tokenizer.from_file(str(path)), context=context, padding=padding, lower_case=lower_case)

    @property
    def vocabulary(self) -> int:
        """How many tokens it has, without those that were added to it."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    def refilled(self, *, context: int, fill: bool) -> Tokenizer:
        """Return the same one for another length."""
        # A copy: the length is kept in the library's own.
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        padding = replace(self.padding, fill=fill)
        return Tokenizer(backend, context=context, padding=padding, lower_case=self.lower_case)

    def save(self, path: Path) -> None:
        """Write tokenizer.json."""
        self._backend.save(str(path))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, at most ``context`` of them, special tokens included."""
        return [list(text.ids) for text in self.read_texts(texts)]

    def read_texts(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return the tokens of each text, and whether some of it was left out."""
        cased = [text.lower() for text in texts] if self.lower_case else list(texts)
        found = self._backend.encode_batch(cased)
        return [TokenizedText(tuple(encoding.ids), bool(encoding.overflowing)) for encoding in found]

    def pad(self, ids: Sequence[Sequence[int]]) -> Tokens:
        """Return tokens of shape [N, T]: as long as the longest, or as the context."""
        length = self.context if self.padding.fill else max(map(len, ids))
        tokens = np.full((len(ids), length), self.padding.token, np.int64)
        mask = np.zeros_like(tokens)
        for row, seen, text in zip(tokens, mask, ids, strict=True):
            place = slice(length - len(text), None) if self.padding.left else slice(len(text))
            row[place], seen[place] = text, 1
        return Tokens(tokens, mask)
