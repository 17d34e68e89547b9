"""A collection is indexed, searched and labelled: in this process, on the small checkpoint or on rows of numbers."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_app import scoring
from clip_app.analyzer import TextQuery
from clip_app.bulk import embed_all
from clip_app.collection import searching
from clip_app.collection.indexing import KEPT_AT_ONCE, Progress, index
from clip_app.collection.labelling import LabelRows, label
from clip_app.collection.searching import Question, duplicate_groups, search
from clip_app.collection.store import Collection, Identity, Row
from clip_app.model import Model
from clip_app.ranking import Matrix
from clip_app.settings import load_settings

IDENTITY = Identity("acme/clip", "1", "squares", 8)
MOST = 1_000_000


def units(count: int, seed: int = 0) -> Matrix:
    rows: Matrix = np.random.default_rng(seed).standard_normal((count, IDENTITY.dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def kept(count: int) -> list[Row]:
    return [Row(path=f"/{i:04d}.png", stamp="1", width=10 + i, height=10) for i in range(count)]


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.writing(tmp_path / "numbers", IDENTITY) as opened:
        yield opened


# Search.


def text(vector: Matrix, neutral: Matrix, scale: float = 100.0) -> TextQuery:
    return TextQuery(vector, neutral, scale)


def test_the_best_are_those_of_the_highest_cosine_whatever_the_size_of_a_part(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "AT_ONCE", 7)
    rows = units(50)
    collection.add(kept(50), rows)
    query = units(1, seed=1)[0]
    question = Question(picture=query)
    found = search(collection, question, most=5, above=-1)
    expected = np.argsort(-(rows @ query), kind="stable")[:5]
    assert [hit.row.path for hit in found] == [f"/{i:04d}.png" for i in expected]
    assert [hit.score for hit in found] == pytest.approx((rows @ query)[expected].tolist(), abs=1e-6)
    assert len(search(collection, question, most=100, above=-1)) == 50
    least = found[2].score
    assert len(search(collection, question, most=100, above=least)) == 3


def test_what_is_hidden_is_never_found(collection: Collection) -> None:
    rows = units(4)
    collection.add(kept(4), rows)
    collection.add([Row(path="/0001.png", stamp="2")], units(1, seed=5))
    known = collection.known("/0002.png")
    assert known is not None
    seen = {one.id for path in ("/0000.png", "/0001.png", "/0003.png") if (one := collection.known(path))}
    collection.mark_gone(["/"], seen, known.id)
    found = search(collection, Question(picture=rows[1]), most=10, above=-1)
    assert sorted(hit.row.path for hit in found) == ["/0000.png", "/0001.png", "/0003.png"]
    assert max(hit.score for hit in found) < 0.999, "the old picture of that name is not found by"


def test_relevance_ends_where_prompts_that_name_nothing_fit_as_well(collection: Collection) -> None:
    wanted, neutral = units(2, seed=3)
    collection.add(kept(3), np.stack([wanted, neutral, wanted]))
    flat = Row(path="/0002.png", stamp="2", flat=True)
    collection.add([flat], wanted[None])
    found = search(collection, Question(text=text(wanted, neutral[None])), most=10)
    assert [hit.row.path for hit in found] == ["/0000.png"], "of one colour is never relevant"
    every = search(collection, Question(text=text(wanted, neutral[None])), most=10, above=-1)
    assert {hit.row.path: hit.relevant for hit in every} == {"/0000.png": True, "/0001.png": False, "/0002.png": False}


def test_what_is_not_to_be_seen_pushes_down_and_out(collection: Collection) -> None:
    axes = np.eye(IDENTITY.dimension, dtype=np.float32)
    wanted, unwanted, neutral = axes[0], axes[1], axes[2]
    both = (wanted + 1.2 * unwanted) / np.linalg.norm(wanted + 1.2 * unwanted)
    collection.add(kept(2), np.stack([both, wanted]))
    asked = text(wanted, neutral[None])
    assert len(search(collection, Question(text=asked), most=10)) == 2
    found = search(collection, Question(text=asked, without=unwanted[None]), most=10)
    assert [hit.row.path for hit in found] == ["/0001.png"]


def test_a_text_and_a_picture_count_both(collection: Collection) -> None:
    axes = np.eye(IDENTITY.dimension, dtype=np.float32)
    half = (axes[0] + axes[1]) / np.sqrt(2).astype(np.float32)
    collection.add(kept(3), np.stack([axes[0], axes[1], half]))
    question = Question(text=text(axes[0], axes[2:3]), picture=axes[1])
    found = search(collection, question, most=10)
    assert [hit.row.path for hit in found] == ["/0002.png"]
    assert found[0].score == pytest.approx(1)


def test_an_empty_collection_has_no_answer(collection: Collection) -> None:
    assert search(collection, Question(picture=units(1)[0]), most=10) == []
    assert duplicate_groups(collection, above=0.9) == []
    assert list(label(collection, [], 100.0)) == []


def test_copies_are_grouped_through_others_the_largest_first(collection: Collection) -> None:
    axes = np.eye(IDENTITY.dimension, dtype=np.float32)
    near = [axes[0], axes[0] + 0.2 * axes[1], axes[0] + 0.4 * axes[1]]
    rows = np.stack([axes[3], *(one / np.linalg.norm(one) for one in near), axes[4], axes[4]]).astype(np.float32)
    collection.add(kept(6), rows)
    collection.add([Row(path="/0004.png", stamp="2", flat=True), Row(path="/0005.png", stamp="2", flat=True)], rows[4:])
    above = float(rows[1] @ rows[2]) - 0.01
    assert rows[1] @ rows[3] < above
    (group,) = duplicate_groups(collection, above=above)
    assert [row.path for row, _ in group] == ["/0003.png", "/0002.png", "/0001.png"]
    assert [cosine for _, cosine in group] == pytest.approx([1, rows[2] @ rows[3], rows[1] @ rows[3]], abs=1e-5)


# Labels.


@pytest.mark.parametrize("independent", [False, True])
def test_labels_are_those_that_each_picture_gets_by_itself(collection: Collection, independent: bool) -> None:
    pictures, labels, neutral = units(5), units(3, seed=7), units(2, seed=8)
    rows = [*kept(4), Row(path="/flat.png", stamp="1", flat=True)]
    collection.add(rows, pictures)
    group = LabelRows(name="mine", labels=("a", "b", "c"), embeddings=labels, neutral=neutral, most=2)
    told = list(label(collection, [group], 10.0, independent=independent))
    assert [{one.row.path for one in each} for each in told] == [{row.path} for row in rows]
    for picture, each in zip(pictures[:4], told[:4], strict=True):
        scores = scoring.score(picture, labels, neutral, 10.0, independent=independent)
        best = np.argsort(-scores.similarity)[:2]
        assert [one.label for one in each] == ["abc"[i] for i in best]
        assert [one.rank for one in each] == [1, 2]
        assert [one.confidence for one in each] == pytest.approx(scores.confidence[best].tolist(), abs=1e-6)
        assert each[0].no_match == pytest.approx(scores.no_match, abs=1e-6)
    assert {(one.confidence, one.no_match) for one in told[4]} == {(0.0, 1.0)}


def test_a_picture_without_a_label_of_that_confidence_is_one_row(collection: Collection) -> None:
    collection.add(kept(1), units(1))
    group = LabelRows(name="mine", labels=("a",), embeddings=-units(1), neutral=units(1), most=5)
    ((one,),) = label(collection, [group], 100.0, threshold=0.5)
    assert (one.label, one.rank, one.confidence) == (None, 0, 0.0)
    assert one.no_match == pytest.approx(1, abs=1e-3)


# Indexing, with the small checkpoint's real embeddings.


def pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    pictures(tmp_path / "photos", KEPT_AT_ONCE + 6)
    return tmp_path / "photos"


@pytest.fixture
def mine(tmp_path: Path, small: Model) -> Iterator[Collection]:
    with Collection.writing(tmp_path / "mine", Identity.of(small)) as opened:
        yield opened


def run(collection: Collection, model: Model, *roots: Path, retry: bool = False) -> tuple[Progress, list[str]]:
    embed = partial(embed_all, model, load_settings(model="bundled"))
    steps = list(index(collection, [str(root) for root in roots], embed, max_bytes=MOST, retry=retry))
    told = [f"{Path(row.path).name}: {row.error}" for row, _ in steps if row is not None and row.error]
    return steps[-1][1], told


def counted(done: Progress) -> tuple[int, int, int, int, int]:
    return done.found, done.unchanged, done.embedded, done.failed, done.gone


def test_only_what_is_new_or_changed_is_embedded_and_what_is_gone_is_marked(
    photos: Path, mine: Collection, small: Model
) -> None:
    count = KEPT_AT_ONCE + 6
    assert counted(run(mine, small, photos)[0]) == (count, 0, count, 0, 0)
    before = {row.path: mine.vectors()[row.vector or 0] for row in mine.found()}
    assert counted(run(mine, small, photos)[0]) == (count, count, 0, 0, 0)
    first, second, third, *_ = sorted(photos.iterdir())
    first.write_bytes(second.read_bytes())
    third.unlink()
    pictures(photos / "more", 1)
    assert counted(run(mine, small, photos)[0]) == (count, count - 2, 2, 0, 1)
    after = {row.path: mine.vectors()[row.vector or 0] for row in mine.found()}
    assert np.allclose(after[str(first)], before[str(second)], atol=1e-5)
    assert str(third) not in after
    assert mine.counts().gone == 1
    pictures(photos, 3)
    for path in (first, second, third):
        os.utime(path, ns=(1, 1))
    run(mine, small, photos)
    assert mine.counts().gone == 0


def test_what_is_kept_is_what_the_model_says_of_each_and_the_file_as_it_was(
    photos: Path, mine: Collection, small: Model
) -> None:
    run(mine, small, photos)
    for row in list(mine.found())[:3]:
        pixels = small.preprocessing(Image.open(row.path), exact=False)
        (expected,) = small.encode_images(pixels[None])
        assert np.allclose(mine.vectors()[row.vector or 0], expected, atol=1e-5)
        assert (row.width, row.height, row.size) == (24, 20, Path(row.path).stat().st_size)
        assert row.sha256 is not None
        assert len(row.sha256) == 32


def test_a_bad_file_is_a_row_and_read_again_when_asked_or_changed(photos: Path, mine: Collection, small: Model) -> None:
    bad = photos / "bad.png"
    bad.write_bytes(b"no picture")
    done, told = run(mine, small, photos)
    assert done.failed == 1
    assert told[0].startswith("bad.png: This is not a picture")
    assert [row.path for row in mine.failures()] == [str(bad)]
    assert run(mine, small, photos)[0].failed == 0, "it has not changed"
    assert run(mine, small, photos, retry=True)[0].failed == 1
    pictures(photos, 1)[0].rename(bad)
    assert run(mine, small, photos)[0].embedded == 1
    assert mine.counts().failed == 0


def test_what_cannot_be_looked_at_is_not_gone(photos: Path, mine: Collection, small: Model, tmp_path: Path) -> None:
    run(mine, small, photos)
    photos.rename(tmp_path / "away")  # a disk that is not there today
    done, told = run(mine, small, photos)
    assert told == ["photos: No such file or directory."]
    assert (done.gone, mine.counts().pictures) == (0, KEPT_AT_ONCE + 6)
    assert mine.known(str(photos)) is None, "a folder is no picture"


def test_broken_off_it_keeps_what_was_embedded(photos: Path, mine: Collection, small: Model) -> None:
    embed = partial(embed_all, small, load_settings(model="bundled"))
    with closing(index(mine, [str(photos)], embed, max_bytes=MOST)) as steps:
        for _ in range(10):
            next(steps)
    assert mine.counts().pictures == 10
    assert counted(run(mine, small, photos)[0])[1:3] == (10, KEPT_AT_ONCE - 4)
    assert len(mine.vectors()) == KEPT_AT_ONCE + 6


def test_an_archive_is_embedded_as_its_pictures_are(
    photos: Path, mine: Collection, small: Model, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.iterdir())[:5]:
            archive.write(path, path.name)
    run(mine, small, tmp_path / "photos.zip", photos)
    rows = {row.path: mine.vectors()[row.vector or 0] for row in mine.found()}
    assert len(rows) == KEPT_AT_ONCE + 11
    for path in sorted(photos.iterdir())[:5]:
        assert np.allclose(rows[f"{tmp_path}/photos.zip/{path.name}"], rows[str(path)], atol=1e-5)
