"""Many pictures at once: in order, in batches, and an error hits only its own picture."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_app.bulk import Seen, embed_all
from clip_app.errors import EncodingFailed, UndecodableImage, UnreadablePath
from clip_app.images import decode
from clip_app.model import Model
from clip_app.settings import load_settings


@pytest.fixture
def reads(photographs: dict[str, Path], tmp_path: Path) -> list[Callable[[], bytes]]:
    """Two photographs, what is no picture, what cannot be read, one of one colour, and a photograph."""

    def gone() -> bytes:
        raise UnreadablePath("It is gone.")

    grey = tmp_path / "grey.png"
    Image.new("RGB", (80, 60), "grey").save(grey)
    found = [photographs[name].read_bytes for name in ("cat", "coffee", "rocket")]
    return [found[0], found[1], lambda: b"no picture", gone, grey.read_bytes, found[2]]


def test_each_has_its_embedding_or_its_error_in_order(bundled: Model, reads: list[Callable[[], bytes]]) -> None:
    found = list(embed_all(bundled, load_settings(max_batch_size=2), reads))
    kinds = [Seen, Seen, UndecodableImage, UnreadablePath, Seen, Seen]
    assert [type(item) for item in found] == kinds
    assert [item.flat for item in found if isinstance(item, Seen)] == [False, False, True, False]
    for read, item in zip(reads, found, strict=True):
        if isinstance(item, Seen):
            picture = decode(read(), max_bytes=10**7, max_pixels=10**7, target=bundled.preprocessing.target).image
            alone = bundled.encode_images(bundled.preprocessing(picture, exact=False)[None])[0]
            assert float(alone @ item.embedding) > 0.9999


def test_what_cannot_be_encoded_together_is_encoded_alone(bundled: Model, reads: list[Callable[[], bytes]]) -> None:
    uneven = copy.copy(bundled)
    uneven.preprocessing = replace(bundled.preprocessing, size=None, shortest_edge=128, crop=None)
    found = list(embed_all(uneven, load_settings(), reads[:2]))
    assert [type(item) for item in found] == [Seen, Seen]


def test_what_cannot_be_encoded_at_all_is_an_error(
    bundled: Model, small: Model, reads: list[Callable[[], bytes]]
) -> None:
    wrong = copy.copy(small)
    wrong.preprocessing = bundled.preprocessing
    assert [type(item) for item in embed_all(wrong, load_settings(), reads[:2])] == [EncodingFailed, EncodingFailed]


def test_who_stops_early_waits_for_nothing(bundled: Model, reads: list[Callable[[], bytes]]) -> None:
    found = embed_all(bundled, load_settings(max_batch_size=1), reads * 50)
    first = next(found)
    assert isinstance(first, Seen)
    assert np.linalg.norm(first.embedding) == pytest.approx(1, abs=1e-3)
    found.close()  # type: ignore[attr-defined]
