"""WordNet's nouns (Princeton, version 3.0): words, senses, glosses and what is a kind of what."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Sense", "Synset", "WordNet"]

# ImageNet names its classes by offsets into exactly this file, as Debian's wordnet-base 1:3.0-37 has it.
SHA256 = {
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "index.noun": "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04",
}


@dataclass(frozen=True)
class Synset:
    """One meaning: its words, its gloss without examples, and the meanings that it is a kind of."""

    words: tuple[str, ...]
    gloss: str
    above: tuple[str, ...]


@dataclass(frozen=True)
class Sense:
    """The meanings of a word, the most frequent first, and how many of them occurred in WordNet's own corpus."""

    synsets: tuple[str, ...]
    seen: int


class WordNet:
    """The nouns; a meaning goes by ImageNet's name for it (``n`` and eight digits)."""

    def __init__(self, folder: Path) -> None:
        """Read the database of ``folder``, if it is the expected one."""
        for name, expected in SHA256.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise SystemExit(f"{folder / name} is not WordNet 3.0's as Debian's wordnet-base has it.")
        self.synsets = dict(_synsets(folder / "data.noun"))
        self.senses = dict(_senses(folder / "index.noun"))

    def above(self, name: str) -> set[str]:
        """All meanings above ``name``, itself included."""
        return _closure(name, lambda item: self.synsets[item].above)

    def under(self, name: str) -> set[str]:
        """All meanings below ``name``, itself included."""
        return _closure(name, lambda item: self._below.get(item, ()))

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        result = defaultdict(list)
        for name, synset in self.synsets.items():
            for above in synset.above:
                result[above].append(name)
        return dict(result)


def _closure(start: str, step: Callable[[str], Iterable[str]]) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        new = set(step(waiting.pop())) - found
        found |= new
        waiting.extend(new)
    return found


def _lines(path: Path) -> Iterator[str]:
    """The lines of a database file after its licence, which is indented."""
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if not line.startswith(" "))


def _synsets(path: Path) -> Iterator[tuple[str, Synset]]:
    """Parse data.noun (wndb(5WN)): offset, file, type, words, pointers | gloss."""
    for line in _lines(path):
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        end = 4 + 2 * int(fields[3], 16)
        words = tuple(word.replace("_", " ") for word in fields[4:end:2])
        pointers = fields[end + 1 : end + 1 + 4 * int(fields[end])]
        kinds = zip(pointers[::4], pointers[1::4], strict=True)
        above = tuple(f"n{offset}" for kind, offset in kinds if kind in {"@", "@i"})
        yield f"n{fields[0]}", Synset(words, gloss.split('; "')[0].strip(), above)


def _senses(path: Path) -> Iterator[tuple[str, Sense]]:
    """Parse index.noun: a word in lower case, ..., how many meanings were seen, the meanings."""
    for line in _lines(path):
        fields = line.split()
        count = int(fields[2])
        yield fields[0].replace("_", " "), Sense(tuple(f"n{item}" for item in fields[-count:]), int(fields[-count - 1]))
